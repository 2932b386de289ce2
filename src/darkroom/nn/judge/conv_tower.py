"""A small residual convolutional network for pictures of 28 to 64 pixels, shared in shape by all judges and towers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config.networks import ConvTowerConfig
from darkroom.nn.layers.blocks import group_norm

GRID = 4  # positions per side that survive to the features


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = group_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # fmt: off
        h = self.conv1(F.silu(self.norm1(x)))                # (N, C, H, W)
        out: Tensor = x + self.conv2(F.silu(self.norm2(h)))  # (N, C, H, W)
        return out
        # fmt: on


class ConvGrid(nn.Module):
    """Pictures (N, C, H, W) in [-1, 1] -> what is where, (N, out_channels, 4, 4).

    Group instead of batch norm: no picture's features depend on its neighbours in the batch.
    """

    def __init__(self, config: ConvTowerConfig, in_channels: int) -> None:
        super().__init__()
        widths = [config.width, 2 * config.width, 4 * config.width]
        self.out_channels = widths[-1]
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        stages: list[nn.Module] = []
        for before, width in zip([widths[0], *widths], widths, strict=False):
            stages.append(nn.Conv2d(before, width, 3, stride=2, padding=1))
            stages.extend(_Block(width) for _ in range(config.depth))
        self.stages = nn.Sequential(*stages)
        self.norm = group_norm(self.out_channels)

    def forward(self, images: Tensor) -> Tensor:
        # fmt: off
        x = self.stem(images)           # (N, width, H, W)
        x = self.stages(x)              # (N, 4 * width, H / 8, W / 8)
        x = F.silu(self.norm(x))        # (N, 4 * width, H / 8, W / 8)
        return averaged(x, GRID)        # (N, 4 * width, 4, 4)
        # fmt: on


def averaged(x: Tensor, side: int) -> Tensor:
    """Means over `side` times `side` windows (N, C, side, side) of (N, C, H, W): `F.adaptive_avg_pool2d`.

    That one's backward pass on CUDA adds in any order. These windows are added one by one.
    """
    h, w = x.shape[2:]
    if h % side == 0 and w % side == 0:
        return F.avg_pool2d(x, (h // side, w // side))
    rows, columns = _windows(h, side), _windows(w, side)
    means = [torch.stack([x[:, :, r, c].mean(dim=(2, 3)) for c in columns], dim=2) for r in rows]
    return torch.stack(means, dim=2)


def _windows(length: int, n: int) -> list[slice]:
    """Of n windows that cover `length` positions: they overlap by one position where n does not divide it."""
    return [slice(i * length // n, -(-(i + 1) * length // n)) for i in range(n)]


class ConvTower(nn.Module):
    """Pictures (N, C, H, W) in [-1, 1] -> features (N, out_features).

    The grid is flattened into the last layer, because a mean over positions could not tell left from right.
    """

    def __init__(self, config: ConvTowerConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        self.grid = ConvGrid(config, in_channels)
        self.out_features = self.grid.out_channels
        self.head = nn.Linear(self.grid.out_channels * GRID * GRID, self.out_features)

    def forward(self, images: Tensor) -> Tensor:
        # fmt: off
        grid = self.grid(images)                   # (N, out_features, 4, 4)
        out: Tensor = self.head(grid.flatten(1))   # (N, out_features)
        return out
        # fmt: on
