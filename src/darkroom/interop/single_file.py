"""A Stable Diffusion 1.x model in one file, under the names of CompVis' code, read strictly and written."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from darkroom.config.denoisers import UNetSpec
from darkroom.config.diffusion import BetaSchedule, ProcessConfig, VPProcess
from darkroom.config.networks import AutoencoderSpec, TextSpec
from darkroom.config.sampling import Sampling, sampler_named
from darkroom.core.artifact import FETCH, save_tensors
from darkroom.core.errors import DarkroomError
from darkroom.core.symlinks import check_inside
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.interop.checkpoint import Checkpoint, open_checkpoint, some
from darkroom.interop.configs import SCALING_FACTOR, read_text_config, read_unet_config, read_vae_config
from darkroom.interop.defaults import Defaults
from darkroom.interop.diffusers import TEXT_ENCODER, TOKENIZER
from darkroom.interop.diffusers import UNET as UNET_FOLDER
from darkroom.interop.diffusers import VAE as VAE_FOLDER
from darkroom.interop.model import Dtype, Model, Spec, Weights, converted, shapes_of, weights_in_memory, weights_of
from darkroom.interop.names import TEXT, UNET, VAE, Rules, convolved, renamed, text_rules, unet_rules, vae_rules
from darkroom.interop.scheduler import GUIDANCE_SCALE, STEPS, read_drawing
from darkroom.interop.tokenizer import find_tokenizer, read_tokenizer
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.nn.denoiser.unet import UNet2DConditionModel
from darkroom.nn.text.clip import CLIPTextModel

IMAGE_SIZE = 512
PROCESS = VPProcess(
    kind="vp",
    schedule=BetaSchedule(kind="scaled_linear", beta_start=0.00085, beta_end=0.012, scale_betas=False),
    num_train_timesteps=1000,
    rescale_betas_zero_snr=False,
)
SAMPLING = Sampling(
    sampler=sampler_named("ddim"),
    num_inference_steps=STEPS,
    guidance_scale=GUIDANCE_SCALE,
    spacing="leading",
    steps_offset=1,
    set_alpha_to_one=False,
)
HEADS, GROUPS = 8, 32  # attention heads of a level, groups of a norm
HEAD_DIM = 64  # of CLIP's text encoders

# What published files hold besides the model's weights.
IGNORED = re.compile(
    r"model_ema\..*"  # a second copy of the U-Net, averaged; the first one is read
    r"|(sqrt_)?(one_minus_)?alphas_cumprod(_prev)?|betas|log_one_minus_alphas_cumprod|sqrt_recip(m1)?_alphas_cumprod"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])|logvar|scale_factor|lvlb_weights"  # the schedule
    r"|cond_stage_model\.(transformer\.)?(text_model\.embeddings\.position_ids|logit_scale|text_projection(\.weight)?)"
    r"|first_stage_model\.(loss|model_ema)\..*"  # the autoencoder's training
    r"|global_step|denoiser\.(log_)?sigmas"
)

LORA = re.compile(r"(^|[._])lora_|\.(lora|processor)\.|\.hada_w\d|\.lokr_")
EMBEDDING = re.compile(r"^(emb_params|string_to_param.*|<.*>)$")

# What other files are, by the beginning of a key that only they have.
FOREIGN = {
    "conditioner.embedders.": "a Stable Diffusion XL checkpoint",
    "cond_stage_model.model.": "a Stable Diffusion 2.x checkpoint",
    "model.diffusion_model.joint_blocks.": "a Stable Diffusion 3 checkpoint",
    "model.diffusion_model.double_blocks.": "a Flux checkpoint",
    "double_blocks.": "a Flux checkpoint",
    "control_model.": "a ControlNet",
    "down_blocks.": "a U-Net of a diffusers folder; give the whole folder",
    "decoder.up.": "an autoencoder alone",
    "encoder.down_blocks.": "an autoencoder of a diffusers folder; give the whole folder",
    "text_model.": "a text encoder alone",
}


@dataclass(frozen=True)
class Part:
    """One network in a single file: with what its names begin there, and the rules for the rest."""

    prefix: str
    rules: Rules
    spec: Spec

    @cached_property
    def names(self) -> dict[str, str]:
        """{our name: name in the file} of every weight."""
        return {key: self.prefix + renamed(key, self.rules) for key in shapes_of(self.spec)}


def read_single_file(path: Path, tokenizer: Path | None = None, config: Path | None = None) -> Model:
    """Everything but the weights themselves, which are checked and read when they are needed.

    Args:
        tokenizer: its folder or file; by default what lies beside the file.
        config: a diffusers folder whose configurations, scheduler and tokenizer hold for this file; by default those of
            Stable Diffusion 1.x, with the widths and depths that the weights have.

    Raises:
        DarkroomError: the file is not a Stable Diffusion 1.x model, and what it is instead; or keys are missing,
            left over or of another shape.
    """
    file = open_checkpoint(path)
    _check_kind(file)
    if config is not None:
        check_inside(config)
    found = {key: shape for key, shape in file.shapes.items() if not IGNORED.fullmatch(key)}
    if tokenizer is None and config is not None:
        tokenizer = config / TOKENIZER
    words = read_tokenizer(tokenizer or find_tokenizer(path))
    process: ProcessConfig = PROCESS
    prediction, drawn, factor = "epsilon", Defaults(SAMPLING, "fp32"), SCALING_FACTOR
    if config is None:
        unet, vae, text = _specs(file, words)
    else:
        unet, (vae, factor) = read_unet_config(config / UNET_FOLDER), read_vae_config(config / VAE_FOLDER)
        text = read_text_config(config / TEXT_ENCODER, words.bos_token_id, words.eos_token_id)
        process, prediction, drawn = read_drawing(config)
    for spec in (unet, vae, text):  # refused by its numbers before its many names are written out
        shapes_of(spec, file)
    weights = [_weights(part, file, found) for part in parts_of(unet, vae, text)]
    claimed = {name for part in weights for name in part.keys.values()}
    if left := sorted(found.keys() - claimed):
        raise DarkroomError(f"{path}: {len(left)} keys are not of Stable Diffusion 1.x ({some(left)}); remove them")
    return Model(
        unet=unet,
        vae=vae,
        text=text,
        unet_weights=weights[0],
        vae_weights=weights[1],
        text_weights=weights[2],
        tokenizer=words,
        scaling_factor=factor,
        process=process,
        prediction_type=prediction,  # type: ignore[arg-type]
        sampling=drawn.sampling,
        precision=drawn.precision,
    )


def write_single_file(model: Model, path: Path, dtype: Dtype = "fp32") -> None:
    """Write the model's weights to `path` (which the caller makes appear whole).

    The file says neither process nor prediction nor scaling factor: who reads it alone takes Stable Diffusion 1.x's.

    Raises:
        DarkroomError: the network is not shaped as Stable Diffusion 1.x; names the key.
    """
    _check_shape(model)
    tensors = {}
    for part, source in zip(parts_of(model.unet, model.vae, model.text), model.weights, strict=True):
        for key, name in part.names.items():
            value = converted(source.tensor(key), dtype, key, source.file.path)
            tensors[name] = convolved(key, value) if part.prefix == VAE else value
    save_tensors(path, tensors)


def in_memory(unet: UNet2DConditionModel, vae: AutoencoderKL, text: CLIPTextModel, tokenizer: CLIPTokenizer) -> Model:
    """Networks that are there, as a model to be written; all else is Stable Diffusion 1.x's."""
    return Model(
        unet=UNetSpec(network=unet.config, sizes=unet.sizes),
        vae=AutoencoderSpec(network=vae.config, sizes=vae.sizes),
        text=TextSpec(network=text.config, sizes=text.sizes),
        unet_weights=weights_in_memory(unet),
        vae_weights=weights_in_memory(vae),
        text_weights=weights_in_memory(text),
        tokenizer=tokenizer,
        scaling_factor=SCALING_FACTOR,
        process=PROCESS,
        prediction_type="epsilon",
        sampling=SAMPLING,
        precision="fp32",
    )


def unsaid(model: Model) -> list[str]:
    """What of the model is not as in Stable Diffusion 1.x and cannot be said by a single file."""
    usual = PROCESS.model_dump()
    values = {
        **{f"process.{key}": (value, usual.get(key)) for key, value in model.process.model_dump().items()},
        "prediction_type": (model.prediction_type, "epsilon"),
        "scaling_factor": (model.scaling_factor, SCALING_FACTOR),
        "image_size": (model.image_size, IMAGE_SIZE),
    }
    return [f"{key} = {value}" for key, (value, expected) in values.items() if value != expected]


def parts_of(unet: UNetSpec, vae: AutoencoderSpec, text: TextSpec) -> tuple[Part, Part, Part]:
    """The U-Net, the autoencoder and the text encoder in a single file."""
    return (
        Part(UNET, unet_rules(unet.network), unet),
        Part(VAE, vae_rules(vae.network), vae),
        Part(TEXT, text_rules(text.network), text),
    )


def _weights(part: Part, file: Checkpoint, found: dict[str, tuple[int, ...]]) -> Weights:
    inside = {key: shape for key, shape in found.items() if key.startswith(part.prefix)}
    return weights_of(part.spec, file, part.names, inside)


def _check_kind(file: Checkpoint) -> None:
    for marks, what in ((LORA, "a LoRA, which is not a model of its own"), (EMBEDDING, "a learned word alone")):
        if any(marks.search(key) for key in file.shapes):
            raise DarkroomError(f"{file.path}: is {what}, not a Stable Diffusion 1.x model")
    for start, what in FOREIGN.items():
        if any(key.startswith(start) for key in file.shapes):
            raise DarkroomError(f"{file.path}: is {what}, not a Stable Diffusion 1.x model")
    for prefix, what in ((UNET, "U-Net"), (VAE, "autoencoder"), (TEXT, "text encoder")):
        if not any(key.startswith(prefix) for key in file.shapes):
            raise DarkroomError(f"{file.path}: is not a Stable Diffusion 1.x model: it holds no {what} ({prefix}*)")


def _shape(file: Checkpoint, key: str) -> tuple[int, ...]:
    if key not in file.shapes:
        raise DarkroomError(f"{file.path}: is not a whole Stable Diffusion 1.x model: {key} is missing")
    return file.shapes[key]


def _numbers(file: Checkpoint, pattern: str) -> list[tuple[int, ...]]:
    """The numbers that a pattern finds in the keys, sorted."""
    matches = (re.match(pattern, key) for key in file.shapes)
    return sorted({tuple(map(int, match.groups())) for match in matches if match})


def _specs(file: Checkpoint, words: CLIPTokenizer) -> tuple[UNetSpec, AutoencoderSpec, TextSpec]:
    """Those that the shapes of the weights tell of.

    Raises:
        DarkroomError: they tell of none.
    """
    try:
        vae = _vae_spec(file)
        return _unet_spec(file, IMAGE_SIZE // vae.network.downscale), vae, _text_spec(file, words)
    except (IndexError, ValueError) as error:  # of a weight with fewer dimensions than it has in any network
        raise DarkroomError(
            f"{file.path}: its weights have no shapes of Stable Diffusion 1.x ({error}); {FETCH}"
        ) from None


def _unet_spec(file: Checkpoint, sample_size: int) -> UNetSpec:
    """Widths and depths from the weights; the rest, which they do not show, is Stable Diffusion 1.x's."""
    blocks = _numbers(file, re.escape(UNET) + r"input_blocks\.(\d+)\.")
    levels = len(_numbers(file, re.escape(UNET) + r"input_blocks\.(\d+)\.0\.op\.")) + 1
    layers, left = divmod(len(blocks), levels)
    if left or layers < 2:
        raise DarkroomError(f"{file.path}: input_blocks: {len(blocks)} blocks in {levels} levels are not equally deep")
    first = [1 + i * layers for i in range(levels)]  # the first block of each level, and its last on the way up
    last = [(i + 1) * layers - 1 for i in range(levels)]
    has = {key for key in file.shapes if key.endswith(".1.norm.weight")}
    down = tuple(f"{UNET}input_blocks.{n}.1.norm.weight" in has for n in first)
    up = tuple(f"{UNET}output_blocks.{n}.1.norm.weight" in has for n in last)
    context = next((shape for key, shape in file.shapes.items() if key.endswith("attn2.to_k.weight")), None)
    if context is None:
        raise DarkroomError(f"{file.path}: is not a Stable Diffusion 1.x model: its U-Net attends to no text (attn2)")
    channels = _shape(file, f"{UNET}input_blocks.0.0.weight")[1], _shape(file, f"{UNET}out.2.weight")[0]
    if channels[0] != channels[1]:
        raise DarkroomError(
            f"{file.path}: in_channels = {channels[0]}, but out_channels = {channels[1]}; networks for inpainting, and "
            "those that predict a variance too, are not read"
        )
    network = {
        "kind": "unet_2d_condition",
        "down_block_types": ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in down],
        "up_block_types": ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in up],
        "block_out_channels": [_shape(file, f"{UNET}input_blocks.{n}.0.in_layers.2.weight")[0] for n in first],
        "layers_per_block": layers - 1,
        "transformer_layers_per_block": [1] * levels,
        "num_attention_heads": [HEADS] * levels,
        "use_linear_projection": False,
        "norm_num_groups": GROUPS,
    }
    sizes = {
        "in_channels": channels[0],
        "sample_size": sample_size,
        "cross_attention_dim": context[1],
        "num_classes": None,
    }
    return UNetSpec.read({"network": network, "sizes": sizes}, str(file.path), FETCH)


def _vae_spec(file: Checkpoint) -> AutoencoderSpec:
    levels = len(_numbers(file, re.escape(VAE) + r"encoder\.down\.(\d+)\."))
    layers = len(_numbers(file, re.escape(VAE) + r"encoder\.down\.0\.block\.(\d+)\."))
    network = {
        "latent_channels": _shape(file, f"{VAE}post_quant_conv.weight")[0],
        "block_out_channels": [_shape(file, f"{VAE}encoder.down.{i}.block.0.conv1.weight")[0] for i in range(levels)],
        "layers_per_block": layers,
        "norm_num_groups": GROUPS,
    }
    sizes = {"in_channels": _shape(file, f"{VAE}encoder.conv_in.weight")[1]}
    return AutoencoderSpec.read({"network": network, "sizes": sizes}, str(file.path), FETCH)


def _text_spec(file: Checkpoint, words: CLIPTokenizer) -> TextSpec:
    vocabulary, width = _shape(file, f"{TEXT}embeddings.token_embedding.weight")
    if width % HEAD_DIM:
        raise DarkroomError(f"{file.path}: the text encoder's width of {width} is not a multiple of CLIP's {HEAD_DIM}")
    if len(words.vocab) != vocabulary:
        raise DarkroomError(
            f"{file.path}: the text encoder knows {vocabulary} tokens, the tokenizer {len(words.vocab)}; give its own"
        )
    network = {
        "vocab_size": vocabulary,
        "max_length": _shape(file, f"{TEXT}embeddings.position_embedding.weight")[0],
        "hidden_size": width,
        "num_hidden_layers": len(_numbers(file, re.escape(TEXT) + r"encoder\.layers\.(\d+)\.")),
        "num_attention_heads": width // HEAD_DIM,
        "hidden_act": "quick_gelu",
        "intermediate_size": _shape(file, f"{TEXT}encoder.layers.0.mlp.fc1.weight")[0],
    }
    end = words.eos_token_id
    sizes = {"bos_token_id": words.bos_token_id, "eos_token_id": end, "pad_token_id": end}
    return TextSpec.read({"network": network, "sizes": sizes}, str(file.path), FETCH)


def _check_shape(model: Model) -> None:
    """What a single file cannot say must be as in Stable Diffusion 1.x, or who reads it would get another network."""
    levels = len(model.unet.network.block_out_channels)
    unet = {
        "num_attention_heads": [HEADS] * levels,
        "transformer_layers_per_block": [1] * levels,
        "norm_num_groups": GROUPS,
        "use_linear_projection": False,
    }
    text = {"hidden_act": "quick_gelu", "num_attention_heads": model.text.network.hidden_size // HEAD_DIM}
    networks = (
        ("unet", model.unet.network, unet),
        ("unet", model.unet.sizes, {"num_classes": None}),
        ("vae", model.vae.network, {"norm_num_groups": GROUPS}),
        ("text_encoder", model.text.network, text),
    )
    for part, config, wanted in networks:
        for key, value in wanted.items():
            found = getattr(config, key)
            if found != value:
                raise DarkroomError(
                    f"{part}.{key} = {found}: a single file cannot say so, and Stable Diffusion 1.x has {value}; "
                    "export with --format diffusers"
                )
