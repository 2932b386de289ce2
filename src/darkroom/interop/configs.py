"""config.json of the networks in a diffusers folder <-> ours; what we cannot represent is refused by its key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from darkroom.config.clip_text import TEXT_SILENT, TEXT_THEIRS
from darkroom.config.denoisers import UNetSpec
from darkroom.config.networks import AutoencoderSpec, NetworkSpec, TextSpec
from darkroom.core.artifact import CONFIG, FETCH, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import JSON_BYTES, check_network
from darkroom.core.text import printable
from darkroom.interop.keys import (
    TEXT_NEUTRAL,
    UNET_IDLE,
    UNET_NEUTRAL,
    UNET_SILENT,
    VAE_IDLE,
    VAE_NEUTRAL,
    VAE_SILENT,
)

SCALING_FACTOR = 0.18215  # of Stable Diffusion 1.x, whose files do not say it
DIFFUSERS_FORMAT = "0.35.0"  # the version whose formats are written, whichever version, if any, is installed

INFINITE = ("lambda_min_clipped",)  # keys that diffusers itself writes with a number without end
LEGACY_EOS = 2  # with which transformers pools at the largest id; Stable Diffusion never looks at what is pooled
# Where our word is not theirs.
THEIRS = {
    "num_attention_heads": "attention_head_dim",
    "num_classes": "num_class_embeds",
}
AnySpec = TypeVar("AnySpec", bound=NetworkSpec[Any, Any])


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


def read_unet_config(folder: Path) -> UNetSpec:
    """config.json of a UNet2DConditionModel.

    Raises:
        DarkroomError: it is another network, or one that ours cannot be; names the key.
    """
    path = folder / CONFIG
    return unet_spec(tagged(path, ("UNet2DConditionModel",)), path)


def unet_spec(values: Mapping[str, Any], path: Path) -> UNetSpec:
    """What diffusers' configuration of a UNet2DConditionModel at `path` describes; see `read_unet_config`."""
    values = _known(path, values, UNET_SILENT, UNET_NEUTRAL, UNET_IDLE)
    widths, context, layers = (values[k] for k in ("block_out_channels", "cross_attention_dim", "layers_per_block"))
    if isinstance(context, list) and context != widths:  # else each level attends to itself, which diffusers states so
        raise DarkroomError(
            f"{path}: cross_attention_dim = {printable(context)} differs by level; only one for all is read"
        )
    if isinstance(layers, list) and (not layers or any(one != layers[0] for one in layers)):
        raise DarkroomError(
            f"{path}: layers_per_block = {printable(layers)} differs by level; only one for all is read"
        )
    _check_channels(path, values, "networks for inpainting, and those that predict a variance too,")
    levels = len(widths) if isinstance(widths, list) else 0
    classes = values["num_class_embeds"]
    network = {
        "kind": "unet_2d_condition",
        **{key: values[key] for key in ("down_block_types", "up_block_types", "norm_num_groups")},
        "block_out_channels": widths,
        "layers_per_block": layers[0] if isinstance(layers, list) else layers,
        "transformer_layers_per_block": _each(values["transformer_layers_per_block"], levels),
        "num_attention_heads": _each(values["attention_head_dim"], levels),
        "use_linear_projection": values["use_linear_projection"],
    }
    sizes = {
        "in_channels": values["in_channels"],
        "sample_size": values["sample_size"],
        "cross_attention_dim": None if isinstance(context, list) else context,
        "num_classes": classes - 1 if isinstance(classes, int) else classes,  # theirs counts the null class
    }
    return _spec(UNetSpec, path, network, sizes)


def read_vae_config(folder: Path) -> tuple[AutoencoderSpec, float]:
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
    return vae_spec(values, path), float(factor)


def vae_spec(values: Mapping[str, Any], path: Path) -> AutoencoderSpec:
    """What diffusers' configuration of an AutoencoderKL at `path` describes; see `read_vae_config`."""
    values = _known(path, values, VAE_SILENT, VAE_NEUTRAL, VAE_IDLE)
    _check_channels(path, values, "autoencoders that change the number of channels")
    network = {key: values[key] for key in VAE_SILENT if key not in ("in_channels", "out_channels")}
    return _spec(AutoencoderSpec, path, network, {"in_channels": values["in_channels"]})


def read_text_config(folder: Path, bos_token_id: int, eos_token_id: int) -> TextSpec:
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
    return text_spec(values, path)


def text_spec(values: Mapping[str, Any], path: Path) -> TextSpec:
    """What transformers' configuration of a CLIPTextModel at `path` describes; see `read_text_config`."""
    values = _known(path, values, TEXT_SILENT, TEXT_NEUTRAL, None)
    sizes = {key: values.pop(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    network = {"max_length" if key == TEXT_THEIRS["max_length"] else key: value for key, value in values.items()}
    return _spec(TextSpec, path, network, sizes, TEXT_THEIRS)


def _known(
    path: Path,
    values: Mapping[str, Any],
    silent: Mapping[str, Any],
    neutral: Mapping[str, Any],
    idle: tuple[str, ...] | None,
) -> dict[str, Any]:
    """The values of the keys in `silent`; idle: keys without meaning here, None where any other is one."""
    for key, value in values.items():
        if key in neutral and value != neutral[key]:
            raise DarkroomError(f"{path}: {key} = {printable(repr(value))} is not supported, only {neutral[key]!r}")
        strange = idle is not None and key not in silent and key not in neutral and key not in idle
        if strange and not key.startswith("_") and value not in (None, False):
            raise DarkroomError(
                f"{path}: {printable(key)} = {printable(repr(value))} is not known here, so this "
                f"network would not be the same"
            )
    known = {key: values.get(key, usual) for key, usual in silent.items()}
    check_network(known, str(path), FETCH)
    return known


def _check_channels(path: Path, values: Mapping[str, Any], other: str) -> None:
    if values["out_channels"] != values["in_channels"]:
        raise DarkroomError(
            f"{path}: in_channels = {values['in_channels']!r}, but out_channels = {values['out_channels']!r}; {other} "
            "are not read"
        )


def _each(value: Any, levels: int) -> Any:
    """A number for every level, where one stands for all."""
    return value if isinstance(value, list) else [value] * levels


def _spec(
    kind: type[AnySpec],
    path: Path,
    network: Mapping[str, Any],
    sizes: Mapping[str, Any],
    theirs: Mapping[str, str] = THEIRS,
) -> AnySpec:
    """theirs: what our keys are called in the file, which messages name."""
    try:
        return kind.read({"network": network, "sizes": sizes}, "", FETCH)
    except DarkroomError as error:
        message = str(error).removeprefix(": ").removeprefix("network.").removeprefix("sizes.")
        for ours, name in theirs.items():
            message = message.replace(ours, name)
        raise DarkroomError(f"{path}: {message}") from None


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


def unet_config(spec: UNetSpec) -> dict[str, Any]:
    """config.json of the network in diffusers."""
    values, sizes = spec.network.model_dump(exclude={"kind"}), spec.sizes
    heads, depths = values.pop("num_attention_heads"), values.pop("transformer_layers_per_block")
    return {
        **values,
        "attention_head_dim": _joined(heads),
        "transformer_layers_per_block": _joined(depths),
        "sample_size": sizes.sample_size,
        "in_channels": sizes.in_channels,
        "out_channels": sizes.in_channels,
        # Without text each level attends to itself.
        "cross_attention_dim": values["block_out_channels"]
        if sizes.cross_attention_dim is None
        else sizes.cross_attention_dim,
        "num_class_embeds": None if sizes.num_classes is None else sizes.num_classes + 1,
        **{key: UNET_NEUTRAL[key] for key in ("norm_eps", "flip_sin_to_cos", "freq_shift", "mid_block_type", "act_fn")},
        **class_of("UNet2DConditionModel"),
    }


def _joined(values: list[int]) -> int | list[int]:
    """One number where it is every level's."""
    return values[0] if len(set(values)) == 1 else values


def vae_config(spec: AutoencoderSpec, image_size: int, scaling_factor: float) -> dict[str, Any]:
    """config.json of the network in diffusers; image_size: pixels of a side."""
    levels, channels = len(spec.network.block_out_channels), spec.sizes.in_channels
    return {
        **spec.network.model_dump(),
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "act_fn": "silu",
        **class_of("AutoencoderKL"),
        "sample_size": image_size,
        "scaling_factor": scaling_factor,
    }


def text_config(spec: TextSpec) -> dict[str, Any]:
    """config.json of the network in transformers."""
    values = spec.network.model_dump()
    return {
        **{TEXT_THEIRS.get(key, key): value for key, value in values.items()},
        **spec.sizes.model_dump(),
        "layer_norm_eps": TEXT_NEUTRAL["layer_norm_eps"],
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "projection_dim": values["hidden_size"],
        "attention_dropout": 0.0,
    }


def class_of(name: str) -> dict[str, str]:
    """How diffusers marks a configuration."""
    return {"_class_name": name, "_diffusers_version": DIFFUSERS_FORMAT}
