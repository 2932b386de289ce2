"""The rule of dpmpp_2m and dpmpp_2m_sde."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from darkroom.diffusion.samplers._base import Denoise, Noise, OnStep

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.diffusion.schedule import Level


def dpm_solver_2m(
    denoise: Denoise, x: "Tensor", levels: "Sequence[Level]", noise: Noise, on_step: OnStep, eta: float = 0.0
) -> "Tensor":
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): multistep in log(alpha / sigma), first order at both ends.

    Out of alpha 0 the first step is infinitely long there, so nothing is extrapolated in the second, which is of first
    order too.

    Args:
        eta: 1 is the solver of the reverse SDE (appendix A of the paper, "SDE-DPM-Solver++(2M)") instead of the flow's.
    """
    before: Tensor | None = None
    h_before = 0.0
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = denoise(x, now)
        if after.sigma == 0:
            x = after.alpha * x0
        else:
            h = half_log_snr(after) - half_log_snr(now)
            r = h_before / h
            ahead = x0 if before is None else x0 + (x0 - before) / (2 * r)
            kept = (after.sigma / now.sigma) * (math.exp(-eta * h) if eta > 0 else 1.0)
            x = kept * x - after.alpha * math.expm1(-(1 + eta) * h) * ahead
            if eta > 0:
                x = x + after.sigma * math.sqrt(-math.expm1(-2 * eta * h)) * noise(i)
            before, h_before = x0, h
        on_step(i, x, x0)
    return x


def half_log_snr(level: "Level") -> float:
    """log(alpha / sigma)."""
    return math.log(level.alpha / level.sigma) if level.alpha > 0 else -math.inf
