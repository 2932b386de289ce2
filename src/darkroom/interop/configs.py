"""config.json of the networks in a diffusers folder <-> ours; what we cannot represent is refused by its key."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from darkroom.core.artifact import CONFIG, FETCH, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import JSON_BYTES, check_network
from darkroom.core.outside import typed
from darkroom.core.text import printable
from darkroom.nn.autoencoder.vae import AutoencoderKLConfig
from darkroom.nn.denoiser.unet import UNetConfig
from darkroom.nn.text.clip import CLIPTextConfig

SCALING_FACTOR = 0.18215  # of Stable Diffusion 1.x, whose files do not say it
DIFFUSERS_FORMAT = "0.35.0"  # the version whose formats are written, whichever version, if any, is installed

# Keys that change the network and stand, if at all, at the value that ours has built in.
UNET_NEUTRAL: dict[str, Any] = {
    "center_input_sample": False,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "only_cross_attention": False,
    "mid_block_only_cross_attention": None,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "cross_attention_norm": None,
}
UNET_IDLE = ("upcast_attention", "addition_embed_type_num_heads")  # precision alone, or read only beside another key
VAE_NEUTRAL: dict[str, Any] = {
    "act_fn": "silu",
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
VAE_IDLE = ("sample_size", "force_upcast", "scaling_factor", "down_block_types", "up_block_types")
TEXT_NEUTRAL: dict[str, Any] = {
    "attention_dropout": 0.0,
    "quantization_config": None,
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
INFINITE = ("lambda_min_clipped",)  # keys that diffusers itself writes with a number without end
LEGACY_EOS = 2  # with which transformers pools at the largest id; Stable Diffusion never looks at what is pooled
AnyConfig = TypeVar("AnyConfig", UNetConfig, AutoencoderKLConfig, CLIPTextConfig)


def tagged(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """A configuration that diffusers wrote, of one of these classes.

    Raises:
        DarkroomError: it is missing, no JSON, or of another class.
    """
    values = _json(path)
    if values.get("_class_name") not in names:
        found = values.get("_class_name")
        raise DarkroomError(f"{path}: _class_name = {printable(repr(found))} is not supported, only {', '.join(names)}")
    return values


def read_unet_config(folder: Path) -> UNetConfig:
    """config.json of a UNet2DConditionModel.

    Raises:
        DarkroomError: it is another network, or one that ours cannot be; names the key.
    """
    path = folder / CONFIG
    values = dict(tagged(path, ("UNet2DConditionModel",)))
    context = values.get("cross_attention_dim")
    if isinstance(context, list):  # how diffusers says: each level attends to itself
        if context != values.get("block_out_channels"):
            raise DarkroomError(
                f"{path}: cross_attention_dim = {printable(context)} differs by level; only one for all is read"
            )
        values["cross_attention_dim"] = None
    layers = values.get("layers_per_block")
    if isinstance(layers, list):
        if not layers or any(one != layers[0] for one in layers):
            raise DarkroomError(
                f"{path}: layers_per_block = {printable(layers)} differs by level; only one for all is read"
            )
        values["layers_per_block"] = layers[0]
    return _config(path, UNetConfig, values, UNET_NEUTRAL, UNET_IDLE)


def read_vae_config(folder: Path) -> tuple[AutoencoderKLConfig, float]:
    """config.json of an AutoencoderKL, and its latents' scaling factor, where silent Stable Diffusion 1.x's.

    Raises:
        DarkroomError: see `read_unet_config`.
    """
    path = folder / CONFIG
    values = tagged(path, ("AutoencoderKL",))
    for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        names = values.get(key, [kind])
        if other := [name for name in (names if isinstance(names, list) else [names]) if name != kind]:
            raise DarkroomError(
                f"{path}: {key} names {printable(repr(other[0]))}, which is not supported, only {kind!r}"
            )
    factor = values.get("scaling_factor", SCALING_FACTOR)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor > 0:
        raise DarkroomError(f"{path}: scaling_factor = {printable(repr(factor))}: give a number above 0")
    return _config(path, AutoencoderKLConfig, values, VAE_NEUTRAL, VAE_IDLE), float(factor)


def read_text_config(folder: Path, bos_token_id: int, eos_token_id: int) -> CLIPTextConfig:
    """config.json of a CLIPTextModel; the published ones name wrong special tokens, so they are the tokenizer's.

    Raises:
        DarkroomError: see `read_unet_config`.
    """
    path = folder / CONFIG
    values = dict(_json(path))
    if values.get("model_type") not in ("clip_text_model", "clip"):
        found = printable(repr(values.get("model_type")))
        raise DarkroomError(f"{path}: model_type = {found} is not supported, only clip_text_model")
    if values.get("eos_token_id", LEGACY_EOS) == LEGACY_EOS:
        values |= {"bos_token_id": bos_token_id, "eos_token_id": eos_token_id, "pad_token_id": eos_token_id}
    return _config(path, CLIPTextConfig, values, TEXT_NEUTRAL, None)


def _config(
    path: Path, kind: type[AnyConfig], values: dict[str, Any], neutral: dict[str, Any], idle: tuple[str, ...] | None
) -> AnyConfig:
    """idle: keys without meaning here, None where any other key is one. Silent keys are as in Stable Diffusion 1.x."""
    known = {field.name for field in fields(kind)}
    for key, value in values.items():
        if key in neutral and value != neutral[key]:
            raise DarkroomError(f"{path}: {key} = {printable(repr(value))} is not supported, only {neutral[key]!r}")
        strange = idle is not None and key not in known and key not in neutral and key not in idle
        if strange and not key.startswith("_") and value not in (None, False):
            raise DarkroomError(
                f"{path}: {printable(key)} = {printable(repr(value))} is not known here, so this "
                f"network would not be the same"
            )
    given = {key: value for key, value in values.items() if key in known}
    check_network(given, str(path), FETCH)
    return typed(kind, given, str(path), FETCH)


def read_outside(path: Path) -> Any:
    """What a JSON file of another tool says.

    Raises:
        DarkroomError: see `read_json`.
    """
    return read_json(path, FETCH, JSON_BYTES, INFINITE)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DarkroomError(f"{path}: no such file; give a complete diffusers folder")
    values = read_outside(path)
    if not isinstance(values, dict):
        raise DarkroomError(f"{path}: holds no keys; give a complete diffusers folder")
    return values


def unet_config(config: UNetConfig) -> dict[str, Any]:
    """config.json of the network in diffusers."""
    return {**config.to_diffusers(), **class_of("UNet2DConditionModel")}


def vae_config(config: AutoencoderKLConfig, image_size: int, scaling_factor: float) -> dict[str, Any]:
    """config.json of the network in diffusers; image_size: pixels of a side."""
    extra = {"sample_size": image_size, "scaling_factor": scaling_factor}
    return {**config.to_diffusers(), **class_of("AutoencoderKL"), **extra}


def text_config(config: CLIPTextConfig) -> dict[str, Any]:
    """config.json of the network in transformers."""
    return {
        **asdict(config),
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "projection_dim": config.hidden_size,
        "attention_dropout": 0.0,
    }


def class_of(name: str) -> dict[str, str]:
    """How diffusers marks a configuration."""
    return {"_class_name": name, "_diffusers_version": DIFFUSERS_FORMAT}
