"""From latents to pictures while something else trains: for previews, and with no memory kept between them."""

from pathlib import Path

import torch
from torch import Tensor

from darkroom.core.artifact import check_made_from
from darkroom.nn.autoencoder import tiling as memory
from darkroom.nn.autoencoder.identity import Autoencoder
from darkroom.training.trained import read_autoencoder


class LatentDecoder:
    """Scaled latents (N, c, h, w) -> pictures (N, C, H, W) on the CPU, about [-1, 1], by the autoencoder they are from.

    The autoencoder is read for each use and released after it, so that the training has the device's memory to itself.

    Args:
        vae, latents: the folders of the autoencoder and of the latents that it made.

    Raises:
        DarkroomError: the latents are of another autoencoder, or this one cannot be read; at the start or at a use.
    """

    def __init__(self, vae: Path, latents: Path, scaling_factor: float, device: torch.device) -> None:
        self.vae, self.latents, self.scaling_factor, self.device = vae, latents, scaling_factor, device
        self.centre = self._read().centre * scaling_factor  # scaled; see core.tensors.visible

    def _read(self) -> Autoencoder:
        check_made_from(self.latents, self.vae)
        with torch.random.fork_rng(devices=[]):  # a network gets random weights before it is given its own
            return read_autoencoder(self.vae, self.device)

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        unscaled = latents.to(self.device).float() / self.scaling_factor
        return memory.decode(self._read(), unscaled).cpu()
