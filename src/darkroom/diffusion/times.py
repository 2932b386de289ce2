"""The laws from which training times are drawn, as positions in [0, 1): the share of a process' trained range."""

import torch
from torch import Tensor

from darkroom.config.diffusion import LogitNormalTimes, ShiftedTimes, Times, UniformTimes


def draw_positions(times: Times, n: int, generator: torch.Generator) -> Tensor:
    """n positions (n,) in [0, 1], float32; of every law but `uniform` one from each n-th of it, in random order."""
    if isinstance(times, UniformTimes):
        return torch.rand(n, generator=generator)
    position = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    if isinstance(times, LogitNormalTimes):  # the inverse of its distribution function keeps the strata
        return torch.sigmoid(times.location + times.scale * torch.special.ndtri(position))
    if isinstance(times, ShiftedTimes):
        return times.shift * position / (1 + (times.shift - 1) * position)
    return position
