"""The convolutional building blocks of the VAE and the U-Net, under diffusers' module names."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config.base import CHANNELS_PER_GROUP
from darkroom.nn.layers.fused_norm import enlarged, normed


def group_norm(channels: int) -> nn.GroupNorm:
    """A group norm for the networks whose shape nobody else prescribes: `CHANNELS_PER_GROUP`.

    With fewer, PyTorch's CPU kernel for channels_last bfloat16 takes five to ten times as long (torch 2.13).
    """
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)


def zero_(layer: nn.Conv2d | nn.Linear) -> None:
    """Set weight and bias to zero: a residual branch that ends in `layer` contributes nothing until it has learned."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def timestep_embedding(timestep: Tensor, dim: int, flip_sin_to_cos: bool, freq_shift: float) -> Tensor:
    """Sinusoids of a timestep (Vaswani et al. 2017, section 3.5, as used by DDPM).

    Args:
        timestep: (N,) on the scale [0, 1000), fractions allowed.
        dim: length of the embedding; an odd one ends in a zero.
        flip_sin_to_cos: cosines first, as Stable Diffusion has it.
        freq_shift: the frequencies are 10000^(-i / (dim // 2 - freq_shift)).

    Returns:
        (N, dim) float32. The frequencies are not a buffer: a model moved to 16 bits would round them, and with them t.
    """
    half = dim // 2
    exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=timestep.device)
    angle = timestep.float()[:, None] * torch.exp(exponent / (half - freq_shift))
    waves = (angle.cos(), angle.sin()) if flip_sin_to_cos else (angle.sin(), angle.cos())
    return F.pad(torch.cat(waves, dim=1), (0, dim % 2))


class TimestepEmbedding(nn.Module):
    """(N, in_dim) -> (N, dim): linear, SiLU, linear."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_dim, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out


class ResnetBlock2D(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x))) + time))), with a 1x1 convolution on the short cut where widths differ.

    Args:
        temb_dim: length of the time embedding, or None for a block without one (the VAE).
        groups: groups of both norms. eps: their epsilon (1e-6 in the VAE, 1e-5 in the U-Net of Stable Diffusion).
    """

    def __init__(self, in_channels: int, out_channels: int, temb_dim: int | None, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = None if temb_dim is None else nn.Linear(temb_dim, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, activated_temb: Tensor | None = None) -> Tensor:
        """(N, in, H, W), SiLU of the time embedding (N, temb_dim) -> (N, out, H, W).

        The activation of the time embedding is the same for every block, so the caller takes it once.
        """
        h: Tensor = self.conv1(normed(self.norm1, x, activate=True))
        time = None if self.time_emb_proj is None else self.time_emb_proj(activated_temb)
        h = self.conv2(normed(self.norm2, h, activate=True, added=time))
        shortcut: Tensor = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return shortcut + h


class Downsample2D(nn.Module):
    """Halves the sides by a strided 3x3 convolution, padded on all sides, or right and below only (the VAE encoder)."""

    def __init__(self, channels: int, asymmetric: bool = False) -> None:
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)
        return out


class Upsample2D(nn.Module):
    """Nearest-neighbour enlargement followed by a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C, *size); size None doubles the sides."""
        target = size or (2 * x.shape[2], 2 * x.shape[3])
        out: Tensor = self.conv(enlarged(x, target))
        return out
