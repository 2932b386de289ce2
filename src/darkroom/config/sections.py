"""The sections of params.yaml that have no `kind:`, a class each.

train_vae and setup_text_encoder, which have, are in `autoencoder` and `text_encoder`. Checks across keys write their
own message; for single keys `faults` writes it.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from darkroom.config.base import (
    BatchSize,
    Count,
    Precision,
    Probability,
    Section,
    Seed,
    Whole,
    check_at_most,
    check_within_project,
)
from darkroom.config.buckets import Buckets, Size, sizes_of
from darkroom.config.denoisers import AnyDenoiserConfig
from darkroom.config.diffusion import ObjectiveConfig, ProcessConfig, check_objective
from darkroom.config.networks import ConvTowerConfig, TrainedTextConfig
from darkroom.config.sampling import Sampling
from darkroom.config.sources import SOURCES, Source
from darkroom.config.training import Training

CaptionChoice = Literal["each", "first", "random", "longest"]


class Preparation(Section):
    """How pictures and captions of any source become data in one format."""

    seed: Seed
    """Of what is chosen where there is a limit, of crops, and of the scenes that are drawn."""

    image_size: Annotated[int, Field(ge=8, le=4096)]
    """Pixels of a side; pictures are square. With buckets, the side of the squares that the judges look at and that the
    finished pipeline draws unless asked otherwise."""

    buckets: Buckets | None
    """Sizes in place of one square: [[height, width], …], or made of area, step and max_aspect. A picture becomes of
    the size whose aspect ratio is nearest to its own, by the logarithm; of two equally near, of the larger one. Batches
    are of one size. null: squares."""

    channels: Literal[1, 3]
    """1: grey (luma); 3: RGB."""

    resize: Literal["crop", "pad", "squash"]
    """How a picture becomes square, or of its bucket's shape: the largest centred part of that shape; all of it on
    black; or its proportions given up."""

    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    """Share of the pictures carved out for validation, by the hash of their pixels, where the source has no such split
    of its own."""

    test_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    """Likewise for testing."""

    validation_from: Literal["train", "test"]
    """Split that validation is carved from; test: from the official test split, so that training keeps every picture
    of its own."""

    limit: Count | None
    """Most pictures a split may have; which ones stay depends on their pixels and `seed`. null: all stay."""

    max_bad_fraction: Probability
    """Largest share of the pictures that may be unusable."""

    repeats: Literal["keep", "drop", "merge_captions"]
    """What becomes of a picture whose pixels another one of its split has before it: it stays; it is left out, captions
    and all; or it is left out, but each caption that the first one does not have becomes a row of its own. Several
    captions of one picture are not repeats and always stay."""

    crops: Annotated[int, Field(ge=1, le=100)]
    """Variants of each training picture, the first as it is and the others cropped at random, in consecutive rows for
    each caption. More than 1 with resize = crop only, and not of scenes. No crop has pixels whose hash belongs to
    another split, or to the other half of the data."""

    @property
    def sizes(self) -> tuple[Size, ...]:
        """(height, width) of the pictures: of the buckets, or of the one square."""
        return ((self.image_size, self.image_size),) if self.buckets is None else sizes_of(self.buckets)

    @model_validator(mode="after")
    def _check_crops(self) -> Self:
        _ = self.sizes
        if self.crops > 1 and self.resize != "crop":
            raise ValueError(
                f"crops = {self.crops} needs resize = 'crop', not {self.resize!r}, which keeps the whole picture; give "
                "resize: crop, or crops: 1"
            )
        return self


class PrepareData(Preparation):
    """Pictures and captions, whatever their source, in one format."""

    source: Annotated[Source, SOURCES]
    """Where they come from."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.crops > 1 and self.source.synthetic:
            raise ValueError(
                f"crops = {self.crops} is not for {self.source.kind}, which are drawn at image_size, so that a crop "
                "would be an enlargement; give crops: 1, and for more pictures raise source.n_train"
            )
        if self.buckets is not None and self.source.synthetic:
            raise ValueError(
                f"buckets are not for {self.source.kind}, which are drawn as squares of image_size; give null"
            )
        return self


class CacheLatents(Section):
    """Posterior moments of every picture."""

    batch_size: BatchSize
    """Pictures encoded at once."""

    scaling: Literal["measured", "imported", "none"]
    """What latents are multiplied by: 1 / their standard deviation over the training pictures, the factor that the
    imported autoencoder was published with, or 1."""

    precision: Precision
    """Of the encoder's matrix products and convolutions: bf16 or fp32."""

    mirror: bool | Literal["always"]
    """Whether to cache those of the mirrored training pictures too. true is refused where captions tell left from
    right, always is not."""


class LoRAConfig(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): W x + (alpha / rank) B A x, where A and B are trained."""

    rank: Annotated[int, Field(ge=1, le=1024)]
    """Rows of A and columns of B."""

    alpha: Annotated[float, Field(gt=0, le=10_000)]
    """What B A x is multiplied by, times the rank."""

    targets: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    """Layers of the U-Net that get an adapter, linear ones or convolutions, by the ends of their names: to_q means all
    queries, attn2.to_q those that look at the words."""

    text_encoder: bool
    """Whether the attention of the text encoder gets adapters too; needs setup_text_encoder.cache = tokens, since
    cached states would not change with it."""


class TrainUNet(Training):
    """The denoiser."""

    init_from: str | None
    """The unet folder of an imported model, or of a pipeline made here, to start from, whose shape is then that of
    `unet`; null: from scratch."""

    lora: LoRAConfig | None
    """Adapters that are trained in place of the weights of `init_from`, which stay as they are; null: all weights
    are trained."""

    accumulation: Annotated[int, Field(ge=1, le=4096)]
    """Micro-batches whose gradients make one step: less memory, and the same step up to rounding."""

    unet: AnyDenoiserConfig
    """The network."""

    process: ProcessConfig
    """How pictures become noise."""

    objective: ObjectiveConfig
    """What the network predicts, at which times, and how its errors are measured."""

    condition_dropout: Probability
    """Share of the samples that are trained without their condition, for guidance (Ho & Salimans 2022,
    arXiv:2207.12598)."""

    horizontal_flip: bool
    """Whether to mirror half of the training pictures; where latents are pictures only."""

    captions: CaptionChoice
    """Which caption of a picture with several a sample shows. each: every caption is a sample of its own, so that such
    a picture counts as often as it has captions. first, longest: the same one always, by its place or its letters.
    random: one drawn at every step. Latents are cached once a picture in any case."""

    held_out: Count
    """Most validation pictures that the held-out loss is measured on."""

    sample_every: Count
    """Steps between two previews."""

    samples: Annotated[int, Field(ge=1, le=64)]
    """Pictures of a preview."""

    sampling: Sampling
    """How previews are drawn."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_within_project("init_from", self.init_from)
        if self.init_from is not None and self.unet.kind != "unet_2d_condition":
            raise ValueError(f"init_from does not go with unet.kind = {self.unet.kind!r}; give null")
        if self.lora is not None and self.init_from is None:
            raise ValueError("lora needs weights to adapt, but init_from = null; give the unet folder of a model")
        check_at_most("accumulation", self.accumulation, "batch_size", self.batch_size)
        check_objective(self.process, self.objective)
        return self

    def check_side(self, side: int, key: str = "prepare_data.image_size") -> None:
        """Refuse latents of a side that the network does not take; key: what the side comes of.

        Raises:
            ValueError: the key and the remedy.
        """
        try:
            self.unet.check_side(side)
        except ValueError as error:
            remedy = f"give {'another' if key.endswith('size') else 'other'} {key}"
            raise ValueError(f"train_unet.unet.{error}, the latents' side; {remedy}") from None


class TrainEvaluator(Training):
    """The judges: two networks, each trained on one half of the real pictures."""

    image: ConvTowerConfig
    """Shape of a judge's image tower."""

    text: TrainedTextConfig
    """Shape of a judge's text tower, where the data have captions and no labels."""


class Evaluate(Section):
    """What is generated and measured."""

    seed: Seed
    """Of the noise that pictures are drawn from, and of resampling."""

    precision: Precision
    """Of drawing, here and unless asked otherwise by the finished pipeline: bf16 or fp32."""

    batch_size: BatchSize
    """Pictures drawn at once."""

    n_test: Count
    """Test captions or classes that a picture is drawn for, at most; distances between sets need 20."""

    n_novel: Whole
    """Likewise of the split `novel`, whose combinations training never saw; 0: none."""

    n_grid: Annotated[int, Field(ge=1, le=256)]
    """Drawn pictures that are shown."""

    sampling: Sampling
    """How pictures are drawn, here and unless asked otherwise by the finished pipeline."""

    guidance_sweep: Annotated[list[Annotated[float, Field(ge=0, le=100)]], Field(max_length=16)]
    """Guidance scales that are compared in pictures."""

    n_sweep: Count
    """Prompts of that comparison."""

    bootstrap: Annotated[int, Field(ge=100, le=100_000)]
    """Resamples of which intervals are made (Efron 1979)."""


class Register(Section):
    """What `darkroom register` demands of a version before the alias `candidate` moves to it; null demands nothing.

    It is a dependency of no stage: thresholds can be changed without training anything again. That all figures and
    losses are finite is demanded always.
    """

    valid_judge: bool
    """Whether the judges must read real pictures better than chance, so that their word counts."""

    above_chance: Probability | None
    """By how much more than this the lower end of the interval of every figure of alignment on test captions must lie
    above chance, in [0, 1]. Models that are asked for nothing have no alignment: fid_below decides there."""

    fid_below: Literal["blurred", "mean_colour", "noise"] | None
    """The spoilt real pictures below whose FID the upper end of the model's own FID must lie: those blurred, those of
    which only the mean colour is left, or plain noise."""

    vae_psnr: Annotated[float, Field(ge=0, le=100)] | None
    """PSNR of reconstructed test pictures in dB, at least. Demands nothing of models without an autoencoder."""

    not_below_candidate: bool
    """Whether it may not be worse than the version that has the alias, by the interval of the difference. Only versions
    that were judged with the same data and judges are compared."""
