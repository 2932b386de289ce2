"""Heun's method on the probability flow (Karras et al. 2022)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from darkroom.diffusion.samplers._base import (
    PURE_NOISE,
    AtRatio,
    Denoise,
    Noise,
    OnStep,
    Rule,
    Sampler,
    predicted_noise,
)

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.diffusion.schedule import Level


def heun(denoise: Denoise, x: "Tensor", levels: "Sequence[Level]", noise: Noise, on_step: OnStep) -> "Tensor":
    """Karras et al. 2022, algorithm 1, in its symbols, for x / alpha over t = sigma / alpha; Euler's into sigma 0.

    Also Euler's out of (almost) pure noise: there sigma / alpha falls by orders of magnitude in one step, and the
    correction, half of that times a change of slope, would be larger than the picture.
    """
    for i, (now, after) in enumerate(pairwise(levels)):  # line 3
        x0 = denoise(x, now)
        d = predicted_noise(x, x0, now)  # line 4: d_i, the slope at t_i
        if now.alpha == 0:  # t_i is infinite: Euler's step in x
            x = after.alpha * x0 + after.sigma * d
        else:
            if after.sigma > 0 and now.sigma < PURE_NOISE * now.alpha:  # line 6
                x_next = after.alpha * x0 + after.sigma * d  # line 5: Euler's step to t_{i+1}
                d_prime = predicted_noise(x_next, denoise(x_next, after), after)  # line 7: d'_i, the slope at t_{i+1}
                d = (d + d_prime) / 2  # line 8
            t, t_next = now.sigma / now.alpha, after.sigma / after.alpha
            x = after.alpha * (x / now.alpha + (t_next - t) * d)  # lines 5 and 8: x_{i+1}
        on_step(i, x, x0)
    return x


class Heun(Sampler):
    """A solver of second order at two evaluations a step."""

    kind: Literal["heun"]
    """heun: of second order at two evaluations a step (Karras et al. 2022, algorithm 1)."""

    def rule(self, at_ratio: AtRatio) -> Rule:
        """See `Sampler`."""
        return heun
