"""The autoencoder on large pictures: one at a time, and in overlapping tiles above a size, so that memory stays low.

Results are float32, also where the autoencoder runs under autocast.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from darkroom.core.tensors import check_finite
from darkroom.nn.autoencoder.identity import Autoencoder

AT_ONCE = 512 * 512  # pixels, over all pictures, that go through the autoencoder together
WHOLE = 1024 * 1024  # pixels of a picture beyond which it goes through in tiles
TILE = 512  # pixels of a tile's side
OVERLAP = 128  # pixels by which neighbouring tiles overlap, at least

Through = Callable[[Tensor], Tensor]


class Decoder(Protocol):
    """An autoencoder, of which `decode` is used; downscale: pixels per latent position, along one side."""

    @property
    def downscale(self) -> int: ...

    def decode(self, z: Tensor) -> Tensor: ...


def decode(vae: Decoder, z: Tensor, at_once: int = AT_ONCE, most: int = WHOLE) -> Tensor:
    """Unscaled latents (N, c, h, w) -> pictures (N, C, H, W), about [-1, 1].

    Above `most` pixels the picture is blended from tiles. Each tile's norms see that tile alone, so it differs a
    little from the picture decoded as a whole.

    Raises:
        DarkroomError: they are not finite, and would be black.
    """
    d = vae.downscale
    pictures = _through(vae.decode, z, z.shape[2] * z.shape[3] * d**2, at_once, most, TILE // d, OVERLAP // d)
    check_finite(pictures, "what was drawn", "draw with precision fp32 or less guidance, or fix the model")
    return pictures


def encode(vae: Autoencoder, pictures: Tensor, at_once: int = AT_ONCE, most: int = WHOLE) -> Tensor:
    """Pictures (N, C, H, W) in [-1, 1] -> the posterior's mean (N, c, h, w), unscaled; see `decode`."""

    def mean(x: Tensor) -> Tensor:
        return vae.encode(x).mean

    return _through(mean, pictures, pictures.shape[2] * pictures.shape[3], at_once, most, TILE, OVERLAP)


def _through(network: Through, x: Tensor, pixels: int, at_once: int, most: int, tile: int, overlap: int) -> Tensor:
    if pixels > most:
        return torch.cat([_tiled(network, one, tile, overlap) for one in torch.split(x, 1)])
    return torch.cat([network(part).float() for part in torch.split(x, max(1, at_once // pixels))])


def _tiled(network: Through, x: Tensor, tile: int, overlap: int) -> Tensor:
    """One input (1, c, h, w) through the network in tiles that fade into each other."""
    out = weights = torch.empty(0)
    for top in _starts(x.shape[2], tile, overlap):
        for left in _starts(x.shape[3], tile, overlap):
            part = network(x[:, :, top : top + tile, left : left + tile]).float()
            up, down = _ratio(part.shape[2], min(tile, x.shape[2]))
            if not out.numel():
                out = part.new_zeros(1, part.shape[1], x.shape[2] * up // down, x.shape[3] * up // down)
                weights = torch.zeros_like(out[:, :1])
            fade = overlap * up // down
            weight = _ramp(part.shape[2], fade).view(-1, 1) * _ramp(part.shape[3], fade)
            weight = weight.to(part.device)
            y, z = top * up // down, left * up // down
            here = (..., slice(y, y + part.shape[2]), slice(z, z + part.shape[3]))
            out[here] += weight * part
            weights[here] += weight
    return out / weights


def _ratio(after: int, before: int) -> tuple[int, int]:
    """How many positions become how many: (8, 1) or (1, 8)."""
    return (after // before, 1) if after >= before else (1, before // after)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin: in even strides of at most tile - overlap, the last one at the end."""
    if length <= tile:
        return [0]
    n = -(-(length - overlap) // (tile - overlap))
    grain = max(1, tile // 32)  # keeps every start on a whole latent
    starts = [round(i * (length - tile) / (n - 1) / grain) * grain for i in range(n - 1)]
    return [*starts, length - tile]


def _ramp(length: int, fade: int) -> Tensor:
    """Weights rising from each end over `fade` positions to 1."""
    positions = torch.arange(length)
    return ((torch.minimum(positions, length - 1 - positions) + 1) / (fade + 1)).clamp(max=1)
