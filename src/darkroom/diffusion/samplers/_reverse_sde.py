"""The step of euler_maruyama and predictor_corrector."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from darkroom.diffusion.samplers._base import PURE_NOISE, predicted_noise

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.diffusion.schedule import Level


def reverse_sde_step(x: "Tensor", x0: "Tensor", now: "Level", after: "Level", draw: "Callable[[], Tensor]") -> "Tensor":
    """Euler and Maruyama's method in X = x / alpha over the variance s^2, s = sigma / alpha:
    X' = X + (s^2 - s'^2) score + sqrt(s^2 - s'^2) z, with score = -eps / s (Song et al. 2021b, eq. 6).

    Into sigma 0 it is the mean, E[x0 | x]. Out of (almost) pure noise, where s^2 - s'^2 is many times the variance of a
    picture, it draws from q(x' | x0), the limit of q(x' | x, x0).
    """
    if after.sigma == 0:
        return after.alpha * x0
    if now.sigma >= PURE_NOISE * now.alpha:
        return after.alpha * x0 + after.sigma * draw()
    s, s_after = now.sigma / now.alpha, after.sigma / after.alpha
    moved = x / now.alpha - (s**2 - s_after**2) / s * predicted_noise(x, x0, now)
    return after.alpha * (moved + math.sqrt(s**2 - s_after**2) * draw())
