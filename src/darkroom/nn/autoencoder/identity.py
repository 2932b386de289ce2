"""The autoencoder of pixel-space recipes: latents are the pictures themselves."""

import torch
from torch import Tensor, nn

from darkroom.config.networks import IdentityConfig
from darkroom.nn.autoencoder.vae import LOGVAR_RANGE, AutoencoderKL, Moments


class IdentityAutoencoder(nn.Module):
    """The interface of AutoencoderKL without a network: the posterior is a point, the picture.

    config.range: what the latents of -1 and 1 are; everything between lies between.
    """

    downscale = 1

    def __init__(self, config: IdentityConfig) -> None:
        super().__init__()
        self.config = config
        black, white = config.range
        self.scale, self.shift = (white - black) / 2, (white + black) / 2

    @property
    def centre(self) -> float:
        """See AutoencoderKL.centre: here it is middle grey."""
        return self.shift

    def encode(self, x: Tensor) -> Moments:
        """Pictures (N, C, H, W) in [-1, 1] -> moments of the same shape, of the least variance there is."""
        mean = x * self.scale + self.shift
        return Moments(mean, torch.full_like(x, LOGVAR_RANGE[0]))

    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, C, H, W) -> pictures of the same shape; those outside the range are not clamped."""
        return (z - self.shift) / self.scale


Autoencoder = AutoencoderKL | IdentityAutoencoder
