"""The rule of ddim, ddpm, euler and euler_ancestral."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from darkroom.diffusion.samplers._base import Denoise, Noise, OnStep, predicted_noise

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.diffusion.schedule import Level


def first_order(
    denoise: Denoise,
    x: "Tensor",
    levels: "Sequence[Level]",
    noise: Noise,
    on_step: OnStep,
    eta: float = 0.0,
    variance: Literal["beta_tilde", "beta"] = "beta_tilde",
) -> "Tensor":
    """DDIM (Song et al. 2021a, eq. 12 and 16) between any two levels.

    Args:
        eta: 0 adds no noise, which is DDIM's eq. 12 and Euler; 1 draws from q(x' | x, x0), DDPM's posterior with the
            variance beta-tilde (Ho et al. 2020, eq. 6-7), which is also Euler-ancestral.
        variance: "beta" gives the noise DDPM's other variance, around the same mean.
    """
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = denoise(x, now)
        # variance of x given x'; DDPM's beta between neighbours
        beta = now.sigma**2 - (now.alpha / after.alpha) ** 2 * after.sigma**2
        # eta^2 times the posterior's variance, beta-tilde
        added = eta**2 * (beta * after.sigma**2 / now.sigma**2)
        # without noise exactly sigma', unrounded
        along_eps = math.sqrt(max(after.sigma**2 - added, 0.0)) if added > 0 else after.sigma
        x = after.alpha * x0 + along_eps * predicted_noise(x, x0, now)
        if added > 0:
            x = x + math.sqrt(beta if variance == "beta" else added) * noise(i)
        on_step(i, x, x0)
    return x
