"""params.yaml: one strict model per stage. The only file that reads it.

No key has a default: a params file is complete, so it alone says what was run. Recipes are complete files too.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from darkroom.core.choices import (
    NullCondition,
    Precision,
    PredictionType,
    SamplerName,
    ScheduleName,
    Spacing,
    Weighting,
)
from darkroom.core.errors import DarkroomError
from darkroom.params_faults import explain

PARAMS_FILE = Path("params.yaml")

Count = Annotated[int, Field(ge=1, le=100_000_000)]
Whole = Annotated[int, Field(ge=0, le=100_000_000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Channels = Annotated[int, Field(ge=1, le=8192)]
ImageChannels = Literal[1, 3]
Rate = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A group of keys: nothing unknown, nothing left out, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _divides(key: str, value: int, by: int, what: str) -> None:
    if value % by:
        raise ValueError(f"{key} = {value} is not divisible by {what} = {by}; choose a multiple of {by}")


class Optimizer(Section):
    """AdamW and its schedule; see training.optim.OptimizerConfig."""

    learning_rate: Rate
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    warmup_steps: Whole
    lr_schedule: Literal["constant", "cosine"]
    clip_norm: Annotated[float, Field(gt=0, le=1e6)] | None


class Training(Optimizer):
    """What every trained network has: how long, how much at once, how it is moved."""

    seed: Seed
    precision: Precision
    steps: Count
    batch_size: Annotated[int, Field(ge=1, le=65536)]
    ema_half_life: Count


# --- prepare_data -----------------------------------------------------------------------------------------------------


class ScenesSource(Section):
    """Pictures drawn by code, with captions and structured labels."""

    kind: Literal["scenes"]
    n_train: Count
    n_validation: Count
    n_test: Count
    n_novel: Count


class TorchvisionSource(Section):
    """A labelled data set of torchvision's; `root` is relative to DARKROOM_DATA."""

    kind: Literal["torchvision"]
    name: Literal["MNIST", "FashionMNIST", "CIFAR10"]
    root: str
    download: bool
    caption: str
    manifest: str | None


class ImageFolderSource(Section):
    """One folder per class; `caption` may hold {label}."""

    kind: Literal["image_folder"]
    root: str
    caption: str
    manifest: str | None


class CaptionedFolderSource(Section):
    """Images beside .txt files, or metadata.jsonl / metadata.csv with file_name and text."""

    kind: Literal["captioned_folder"]
    root: str
    manifest: str | None


class WebDatasetSource(Section):
    """Tar shards of KEY.jpg|png|webp with KEY.txt or KEY.json."""

    kind: Literal["webdataset"]
    root: str
    manifest: str | None


Source = Annotated[
    ScenesSource | TorchvisionSource | ImageFolderSource | CaptionedFolderSource | WebDatasetSource,
    Field(discriminator="kind"),
]


class PrepareData(Section):
    """Images and captions in one format for every source."""

    seed: Seed
    source: Source
    image_size: Annotated[int, Field(ge=8, le=4096)]
    channels: ImageChannels
    resize: Literal["crop", "pad", "squash"]
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    limit: Count | None
    max_bad_fraction: Probability


# --- train_vae --------------------------------------------------------------------------------------------------------


class Perceptual(Section):
    """VGG16 features' distance; `weights` is a file with torchvision's VGG16 weights."""

    weights: str
    weight: Weight


class Adversarial(Optimizer):
    """PatchGAN with hinge loss, its weight adapted to the reconstruction's gradient, from `start_step` on."""

    weight: Weight
    start_step: Whole
    channels: Channels
    n_layers: Annotated[int, Field(ge=1, le=6)]


class TrainVAE(Training):
    """The KL autoencoder."""

    mode: Literal["train", "pretrained", "identity"]
    pretrained_path: str | None
    latent_channels: Annotated[int, Field(ge=1, le=64)]
    block_out_channels: Annotated[list[Channels], Field(min_length=1, max_length=8)]
    layers_per_block: Annotated[int, Field(ge=1, le=8)]
    norm_num_groups: Count
    reconstruction: Literal["l1", "l2"]
    kl_weight: Weight
    perceptual: Perceptual | None
    adversarial: Adversarial | None
    validate_every: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        for channels in self.block_out_channels:
            _divides("block_out_channels", channels, self.norm_num_groups, "norm_num_groups")
        if (self.mode == "pretrained") != (self.pretrained_path is not None):
            raise ValueError("pretrained_path must name a folder exactly where mode is pretrained, else be null")
        return self

    @property
    def downscale(self) -> int:
        """How many pixels of a side become one latent."""
        return 1 if self.mode == "identity" else 2 ** (len(self.block_out_channels) - 1)


# --- cache_latents ----------------------------------------------------------------------------------------------------


class CacheLatents(Section):
    """Posterior moments of every picture."""

    batch_size: Annotated[int, Field(ge=1, le=65536)]
    scaling: Literal["measured", "imported", "none"]
    precision: Precision


# --- setup_text_encoder -----------------------------------------------------------------------------------------------


class TextEncoder(Section):
    """CLIP's text transformer."""

    vocab_size: Annotated[int, Field(ge=514, le=1_000_000)]
    max_length: Annotated[int, Field(ge=4, le=1024)]
    hidden_size: Channels
    num_hidden_layers: Annotated[int, Field(ge=1, le=64)]
    num_attention_heads: Annotated[int, Field(ge=1, le=128)]
    intermediate_size: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        _divides("hidden_size", self.hidden_size, self.num_attention_heads, "num_attention_heads")
        return self


class ImageTower(Section):
    """The convolutional image tower that a text encoder or a judge is trained with."""

    width: Channels
    depth: Annotated[int, Field(ge=1, le=6)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _divides("width", self.width, 8, "the tower's group count")
        return self


class SetupTextEncoder(Training):
    """Where the conditions come from."""

    mode: Literal["clip", "class", "none"]
    null_condition: NullCondition
    text: TextEncoder
    image: ImageTower
    validate_every: Count


# --- train_unet -------------------------------------------------------------------------------------------------------

DownBlock = Literal["DownBlock2D", "CrossAttnDownBlock2D"]
UpBlock = Literal["UpBlock2D", "CrossAttnUpBlock2D"]


class UNet(Section):
    """diffusers' UNet2DConditionModel; attention_head_dim is, as there, the number of heads."""

    down_block_types: list[DownBlock]
    up_block_types: list[UpBlock]
    block_out_channels: Annotated[list[Channels], Field(min_length=1, max_length=8)]
    layers_per_block: Annotated[int, Field(ge=1, le=8)]
    transformer_layers_per_block: Annotated[int, Field(ge=1, le=16)]
    attention_head_dim: Annotated[int, Field(ge=1, le=128)]
    norm_num_groups: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        levels = len(self.block_out_channels)
        for key in ("down_block_types", "up_block_types"):
            if len(getattr(self, key)) != levels:
                raise ValueError(f"{key} has {len(getattr(self, key))} entries; block_out_channels has {levels}")
        for channels in self.block_out_channels:
            _divides("block_out_channels", channels, self.norm_num_groups, "norm_num_groups")
            _divides("block_out_channels", channels, self.attention_head_dim, "attention_head_dim")
        return self


class Process(Section):
    """The noise schedule."""

    schedule: ScheduleName
    beta_start: Annotated[float, Field(gt=0, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]
    num_train_timesteps: Annotated[int, Field(ge=2, le=100_000)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start = {self.beta_start} is above beta_end = {self.beta_end}; noise must grow")
        return self


class Sampling(Section):
    """How pictures are drawn unless asked otherwise."""

    sampler: SamplerName
    num_inference_steps: Count
    guidance_scale: Annotated[float, Field(ge=0, le=100)]
    spacing: Spacing


class TrainUNet(Training):
    """The latent U-Net."""

    accumulation: Annotated[int, Field(ge=1, le=4096)]
    unet: UNet
    process: Process
    prediction_type: PredictionType
    weighting: Weighting
    condition_dropout: Probability
    validate_every: Count
    held_out: Count
    sample_every: Count
    samples: Annotated[int, Field(ge=1, le=64)]
    sampling: Sampling

    @model_validator(mode="after")
    def _check(self) -> Self:
        _at_most("accumulation", self.accumulation, "batch_size", self.batch_size)
        steps, times = self.sampling.num_inference_steps, self.process.num_train_timesteps
        _at_most("sampling.num_inference_steps", steps, "process.num_train_timesteps", times)
        return self


def _at_most(key: str, value: int, limit_key: str, limit: int) -> None:
    if value > limit:
        raise ValueError(f"{key} = {value} is above {limit_key} = {limit}; lower it")


# --- train_evaluator --------------------------------------------------------------------------------------------------


class TrainEvaluator(Training):
    """The judge."""

    image: ImageTower
    text: TextEncoder
    validate_every: Count


# --- evaluate ---------------------------------------------------------------------------------------------------------


class Evaluate(Section):
    """What is generated and measured."""

    seed: Seed
    precision: Precision
    batch_size: Annotated[int, Field(ge=1, le=65536)]
    n_test: Count
    n_novel: Whole
    n_grid: Annotated[int, Field(ge=1, le=256)]
    sampling: Sampling
    guidance_sweep: Annotated[list[Annotated[float, Field(ge=0, le=100)]], Field(max_length=16)]
    n_sweep: Count
    bootstrap: Annotated[int, Field(ge=100, le=100_000)]


class Params(Section):
    """The whole file."""

    prepare_data: PrepareData
    train_vae: TrainVAE
    cache_latents: CacheLatents
    setup_text_encoder: SetupTextEncoder
    train_unet: TrainUNet
    train_evaluator: TrainEvaluator
    evaluate: Evaluate

    @model_validator(mode="after")
    def _check(self) -> Self:
        size, factor = self.prepare_data.image_size, self.train_vae.downscale
        _divides("prepare_data.image_size", size, factor, "the downscale factor of train_vae.block_out_channels")
        unet_factor = 2 ** (len(self.train_unet.unet.block_out_channels) - 1)
        latent = size // factor
        _divides("the latent size", latent, unet_factor, "the downscale factor of train_unet.unet.block_out_channels")
        labelled = self.prepare_data.source.kind in ("torchvision", "image_folder")
        if self.setup_text_encoder.mode == "class" and not labelled:
            kind = self.prepare_data.source.kind
            raise ValueError(f"setup_text_encoder.mode = 'class' needs labels, but a {kind} source has none; use clip")
        times = self.train_unet.process.num_train_timesteps
        steps = self.evaluate.sampling.num_inference_steps
        _at_most("evaluate.sampling.num_inference_steps", steps, "train_unet.process.num_train_timesteps", times)
        return self


# --- reading ----------------------------------------------------------------------------------------------------------


def load(path: Path | str = PARAMS_FILE) -> Params:
    """Read and check a params file.

    Raises:
        DarkroomError: one line that names the file, the key, the value, what is allowed and the remedy; when several
            keys are wrong, the first of them and how many more there are.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DarkroomError(f"{path}: no such file; write one with: darkroom recipe use scenes") from None
    except UnicodeDecodeError as error:
        raise DarkroomError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DarkroomError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise DarkroomError(f"{path}: holds no keys; write one with: darkroom recipe use scenes")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        lines = list(explain(error, Params))
        more = f" (and {len(lines) - 1} more; see darkroom params check)" if len(lines) > 1 else ""
        raise DarkroomError(f"{path}: {lines[0]}{more}") from None


def problems(path: Path | str) -> list[str]:
    """Every fault of a params file, a line each; empty when it is sound."""
    try:
        Params.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except ValidationError as error:
        return list(explain(error, Params))
    return []
