"""The laws from which training times are drawn, as positions in [0, 1): the share of a process' trained range."""

from typing import assert_never

import torch
from torch import Tensor

from darkroom.config.diffusion import LogitNormalTimes, ShiftedTimes, StratifiedTimes, Times, UniformTimes


def draw_positions(times: Times, n: int, generator: torch.Generator) -> Tensor:
    """n positions (n,) in [0, 1), float32.

    All but `uniform` are stratified: one from each of n equally likely parts, in random order.
    """
    if isinstance(times, UniformTimes):
        return torch.rand(n, generator=generator)
    position = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    if isinstance(times, LogitNormalTimes):  # by the inverse CDF, which keeps the strata
        return torch.sigmoid(times.location + times.scale * torch.special.ndtri(position))
    if isinstance(times, ShiftedTimes):
        return times.shift * position / (1 + (times.shift - 1) * position)
    if isinstance(times, StratifiedTimes):
        return position
    assert_never(times)
