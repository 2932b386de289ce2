"""train_vae: an autoencoder that is trained, one that was imported, or none."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from darkroom.config.base import (
    CHANNELS_PER_GROUP,
    BatchSize,
    Channels,
    Imported,
    Section,
    Weight,
    Whole,
    check_at_most,
    check_multiple_of,
)
from darkroom.config.networks import AutoencoderKLConfig, PatchDiscriminatorConfig
from darkroom.config.training import Optimization, Training


class Perceptual(Section):
    """Distance of VGG16's features (after LPIPS, Zhang et al. 2018, arXiv:1801.03924), added to the reconstruction."""

    weights: str
    """File with torchvision's VGG16 weights."""

    weight: Weight
    """Of this term beside the reconstruction's."""


class Adversarial(Optimization):
    """PatchGAN with hinge loss, its weight adapted to the reconstruction's gradient (Esser et al. 2021, eq. 7)."""

    weight: Weight
    """Of this term, times the adaptive one."""

    start_step: Whole
    """Step from which it counts, and the discriminator is trained; at most `steps`."""

    channels: Channels
    """Of the discriminator's first layer, a multiple of 16; each further layer has twice as many, up to 8 times."""

    n_layers: Annotated[int, Field(ge=1, le=6)]
    """Layers that halve the resolution; the more, the larger the patches."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_multiple_of("channels", self.channels, CHANNELS_PER_GROUP, "the channels per group of its norms")
        return self

    @property
    def discriminator(self) -> PatchDiscriminatorConfig:
        """The discriminator's shape."""
        return PatchDiscriminatorConfig(channels=self.channels, n_layers=self.n_layers)


class TrainedVAE(Training):
    """A KL autoencoder, trained from scratch."""

    kind: Literal["kl"]
    """Trained here, with a KL term."""

    autoencoder: AutoencoderKLConfig
    """Its shape."""

    reconstruction: Literal["l1", "l2"]
    """Error of a pixel: absolute or squared, the mean over pixels in [-1, 1]."""

    kl_weight: Weight
    """Of the posterior's KL divergence from the standard normal, per element of the latent in nats."""

    initial_logvar: Annotated[float, Field(ge=-30, le=20)]
    """Nats added to the posterior's log variance before training. Below 0, no channel begins as noise that the decoder
    learns to leave out."""

    perceptual: Perceptual | None
    """null: no such term."""

    adversarial: Adversarial | None
    """null: no discriminator."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.adversarial is not None:
            check_at_most("adversarial.start_step", self.adversarial.start_step, "steps", self.steps)
        return self


class PretrainedVAE(Imported):
    """An imported autoencoder, used as it is."""

    batch_size: BatchSize
    """Pictures measured at once."""


class IdentityVAE(Section):
    """No autoencoder: latents are the pictures."""

    kind: Literal["identity"]
    """In pixels."""

    range: Annotated[list[Annotated[float, Field(ge=-100, le=100)]], Field(min_length=2, max_length=2)]
    """What black and white are in the latents, such as [-1.0, 1.0]."""

    batch_size: BatchSize
    """Pictures measured at once."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.range[0] >= self.range[1]:
            raise ValueError(f"range = {self.range} does not rise; give black, then white")
        return self


TrainVAE = Annotated[TrainedVAE | PretrainedVAE | IdentityVAE, Field(discriminator="kind")]
