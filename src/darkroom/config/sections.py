"""What may stand in params.yaml: one strict model per stage, which `params.Params` puts together.

Checks that look at several keys say what is wrong themselves; `params_faults` does so for single keys.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from darkroom.config.base import (
    CHANNELS_PER_GROUP,
    Channels,
    Count,
    Optimizer,
    Probability,
    Section,
    Seed,
    Training,
    Weight,
    Whole,
    at_most,
    divides,
    pretrained,
    within_project,
)
from darkroom.config.choices import LossName, NullCondition, Precision, PredictionType, Reduction, Weighting
from darkroom.config.denoisers import Denoiser
from darkroom.config.diffusion import Process, Sampling, check_objective
from darkroom.config.networks import AutoencoderKLConfig, ConvTowerConfig, PatchDiscriminatorConfig, TrainedTextConfig


class ScenesSource(Section):
    """Pictures drawn by code, with captions and structured labels."""

    kind: Literal["scenes"]
    n_train: Count
    n_validation: Count
    n_test: Count
    n_novel: Count


class OutsideSource(Section):
    """Files from outside the project.

    root: relative to DARKROOM_DATA. manifest: the file that darkroom data scan makes; auto: data/manifests/ROOT.json;
    null: files are not checked.
    """

    root: Annotated[str, Field(min_length=1)]
    manifest: Annotated[str, Field(min_length=1)] | None


class TorchvisionSource(OutsideSource):
    """A labelled data set of torchvision's, whose word for the folder is `root` too; `caption` may hold {label}."""

    kind: Literal["torchvision"]
    name: Literal["MNIST", "FashionMNIST", "CIFAR10"]
    download: bool
    caption: str


class ImageFolderSource(OutsideSource):
    """One folder per class; `caption` may hold {label}."""

    kind: Literal["image_folder"]
    caption: str


class CaptionedFolderSource(OutsideSource):
    """Images beside .txt files, or metadata.jsonl / .csv / .tsv with file_name and text."""

    kind: Literal["captioned_folder"]


class WebDatasetSource(OutsideSource):
    """Tar shards of KEY.jpg, KEY.png, … with KEY.txt or KEY.json."""

    kind: Literal["webdataset"]


Source = Annotated[
    ScenesSource | TorchvisionSource | ImageFolderSource | CaptionedFolderSource | WebDatasetSource,
    Field(discriminator="kind"),
]


class PrepareData(Section):
    """Images and captions in one format for every source; max_bad_fraction: the largest share of the pictures that may
    be unusable; repeats: what becomes of a picture whose pixels another one of its split has before it. keep: it stays.
    drop: it is left out, captions and all. merge_captions: it is left out, but each caption that the first one does not
    have becomes a row of its own. Several captions of one picture are no repeats and always stay; crops: variants of
    each training picture, the first as it is and the others cropped at random; more than 1 with resize = crop only, and
    not of scenes."""

    seed: Seed
    source: Source
    image_size: Annotated[int, Field(ge=8, le=4096)]
    channels: Literal[1, 3]
    resize: Literal["crop", "pad", "squash"]
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    validation_from: Literal["train", "test"]
    limit: Count | None
    max_bad_fraction: Probability
    repeats: Literal["keep", "drop", "merge_captions"]
    crops: Annotated[int, Field(ge=1, le=100)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.crops > 1 and self.resize != "crop":
            raise ValueError(
                f"crops = {self.crops} needs resize = 'crop', not {self.resize!r}, which keeps the whole picture; give "
                "resize: crop, or crops: 1"
            )
        if self.crops > 1 and self.source.kind == "scenes":
            raise ValueError(
                f"crops = {self.crops} is not for scenes, which are drawn at image_size, so that a crop would be "
                "an enlargement; give crops: 1, and for more pictures raise source.n_train"
            )
        return self


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

    @model_validator(mode="after")
    def _check(self) -> Self:
        divides("channels", self.channels, CHANNELS_PER_GROUP, "the channels per group of its norms")
        return self

    @property
    def discriminator(self) -> PatchDiscriminatorConfig:
        """The discriminator's shape."""
        return PatchDiscriminatorConfig(channels=self.channels, n_layers=self.n_layers)


class TrainVAE(Training):
    """The KL autoencoder.

    initial_logvar: in nats, how much less noise the posterior has before training than the networks' own initialisation
        gives it (log variance 0 or so): below 0, no channel begins as noise that the decoder learns to leave out.
    identity_range: what black and white are where there is none (mode identity).
    """

    mode: Literal["train", "pretrained", "identity"]
    pretrained_path: str | None
    identity_range: Annotated[list[Annotated[float, Field(ge=-100, le=100)]], Field(min_length=2, max_length=2)] | None
    latent_channels: Annotated[int, Field(ge=1, le=64)]
    block_out_channels: Annotated[list[Channels], Field(min_length=1, max_length=8)]
    layers_per_block: Annotated[int, Field(ge=1, le=8)]
    norm_num_groups: Count
    reconstruction: Literal["l1", "l2"]
    kl_weight: Weight
    initial_logvar: Annotated[float, Field(ge=-30, le=20)]
    perceptual: Perceptual | None
    adversarial: Adversarial | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for i, channels in enumerate(self.block_out_channels):
            divides(f"block_out_channels.{i}", channels, self.norm_num_groups, "norm_num_groups")
        pretrained(self.mode, self.pretrained_path)
        if (self.mode == "identity") != (self.identity_range is not None):
            wanted = "null" if self.identity_range else "[-1.0, 1.0], or the range that pictures are to have"
            raise ValueError(f"identity_range does not go with mode = {self.mode!r}; give {wanted}")
        if self.identity_range is not None and self.identity_range[0] >= self.identity_range[1]:
            raise ValueError(f"identity_range = {self.identity_range} does not rise; give black, then white")
        if self.adversarial is not None:
            at_most("adversarial.start_step", self.adversarial.start_step, "steps", self.steps)
        return self

    @property
    def autoencoder(self) -> AutoencoderKLConfig:
        """The autoencoder's shape."""
        return AutoencoderKLConfig(**self.model_dump(include=set(AutoencoderKLConfig.model_fields)))

    @property
    def downscale(self) -> int:
        """How many pixels of a side become one latent."""
        return 1 if self.mode == "identity" else self.autoencoder.downscale


class CacheLatents(Section):
    """Posterior moments of every picture.

    mirror: those of the mirrored training pictures too; true is refused where captions tell left from right, always is
    not.
    """

    batch_size: Annotated[int, Field(ge=1, le=65536)]
    scaling: Literal["measured", "imported", "none"]
    precision: Precision
    mirror: bool | Literal["always"]


class HardNegatives(Section):
    """Batches of easily confused captions; see training.hard_negatives."""

    start_step: Count
    every: Count
    group_size: Annotated[int, Field(ge=2, le=1024)]
    neighbours: Annotated[int, Field(ge=1, le=1024)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.group_size > self.neighbours + 1:
            raise ValueError(
                f"group_size = {self.group_size} needs neighbours >= {self.group_size - 1}, not {self.neighbours}; "
                "lower it, or raise neighbours"
            )
        return self


class SetupTextEncoder(Training):
    """Where the conditions come from."""

    mode: Literal["clip", "pretrained", "class", "none"]
    pretrained_path: str | None
    null_condition: NullCondition
    text: TrainedTextConfig
    image: ConvTowerConfig
    hard_negatives: HardNegatives | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        pretrained(self.mode, self.pretrained_path)
        if self.hard_negatives is not None:
            divides("batch_size", self.batch_size, self.hard_negatives.group_size, "hard_negatives.group_size")
        return self


class TrainUNet(Training):
    """The denoiser; init_from: the unet folder of an imported model, whose shape is then that of `unet`."""

    init_from: str | None
    accumulation: Annotated[int, Field(ge=1, le=4096)]
    unet: Denoiser
    process: Process
    prediction_type: PredictionType
    weighting: Weighting
    loss: LossName
    reduction: Reduction
    condition_dropout: Probability
    horizontal_flip: bool
    held_out: Count
    sample_every: Count
    samples: Annotated[int, Field(ge=1, le=64)]
    sampling: Sampling

    @model_validator(mode="after")
    def _check(self) -> Self:
        within_project("init_from", self.init_from)
        if self.init_from is not None and self.unet.kind != "unet_2d_condition":
            raise ValueError(f"init_from does not go with unet.kind = {self.unet.kind!r}; give null")
        at_most("accumulation", self.accumulation, "batch_size", self.batch_size)
        check_objective(self.process, self.prediction_type, self.weighting, self.loss)
        return self


class TrainEvaluator(Training):
    """The judge."""

    image: ConvTowerConfig
    text: TrainedTextConfig


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


class Register(Section):
    """What `darkroom register` demands of a version before the alias `candidate` moves to it; null demands nothing.

    It is a dependency of no stage: thresholds can be changed without training anything again. That all figures and
    losses are finite is demanded always.

    valid_judge: whether the judge must read real pictures better than chance, so that its word counts.
    above_chance: by how much more than this the lower end of the interval of every figure of alignment on test captions
        must lie above chance, in [0, 1]. Models that are asked for nothing have no alignment: fid_below decides there.
    fid_below: the spoilt real pictures below whose FID the upper end of the model's own FID must lie: those blurred,
        those of which only the mean colour is left, or plain noise.
    vae_psnr: of reconstructed test pictures, dB at least. Demands nothing of models without an autoencoder.
    not_below_candidate: whether it may not be worse than the version that has the alias, by the interval of the
        difference. Compared are versions that were judged with the same data and judge, and no others.
    """

    valid_judge: bool
    above_chance: Probability | None
    fid_below: Literal["blurred", "mean_colour", "noise"] | None
    vae_psnr: Annotated[float, Field(ge=0, le=100)] | None
    not_below_candidate: bool
