"""The autoencoder of pixel-space recipes: latents are the pictures themselves."""

import torch
from torch import Tensor, nn

from darkroom.nn.vae import LOGVAR_RANGE, AutoencoderKL, Moments


class IdentityAutoencoder(nn.Module):
    """The interface of AutoencoderKL without a network: the posterior is a point, the picture."""

    downscale = 1

    def encode(self, x: Tensor) -> Moments:
        """Pictures (N, C, H, W) -> moments of the same shape, of the least variance there is."""
        return Moments(x, torch.full_like(x, LOGVAR_RANGE[0]))

    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, C, H, W) -> the same, as pictures."""
        return z


Autoencoder = AutoencoderKL | IdentityAutoencoder
