"""The step of euler_maruyama and predictor_corrector."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from darkroom.diffusion.samplers._base import PURE_NOISE, predicted_noise

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.diffusion.schedule import Level


def reverse_sde_step(
    x: "Tensor", x0: "Tensor", now: "Level", after: "Level", noise: "Callable[[], Tensor]"
) -> "Tensor":
    """A step of Euler and Maruyama's method in X = x / alpha over the variance S = (sigma / alpha)^2: with the score
    (X0 - X) / S, X' = X + (S - S') score + sqrt(S - S') z (Song et al. 2021b, eq. 6).

    Into sigma 0 it is the mean alone, which is E[x0 | x]. Out of (almost) pure noise, where S - S' is that of a picture
    many times over, it draws from q(x' | x, x0), as all samplers do there.
    """
    if after.sigma == 0:
        return after.alpha * x0
    if now.sigma >= PURE_NOISE * now.alpha:
        return after.alpha * x0 + after.sigma * noise()
    s, s_after = now.sigma / now.alpha, after.sigma / after.alpha
    moved = x / now.alpha - (s**2 - s_after**2) / s * predicted_noise(x, x0, now)
    return after.alpha * (moved + math.sqrt(s**2 - s_after**2) * noise())
