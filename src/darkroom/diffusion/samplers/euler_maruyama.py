"""Euler and Maruyama's method on the reverse SDE (Song et al. 2021b)."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from darkroom.diffusion.samplers._base import AtRatio, Denoise, Noise, OnStep, Rule, Sampler
from darkroom.diffusion.samplers._reverse_sde import reverse_sde_step

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.diffusion.schedule import Level


def euler_maruyama(denoise: Denoise, x: "Tensor", levels: "Sequence[Level]", noise: Noise, on_step: OnStep) -> "Tensor":
    """Euler and Maruyama's method on the reverse SDE; see `reverse_sde_step`."""
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = denoise(x, now)
        x = reverse_sde_step(x, x0, now, after, partial(noise, i))
        on_step(i, x, x0)
    return x


class EulerMaruyama(Sampler):
    """The plainest solver of the reverse SDE."""

    kind: Literal["euler_maruyama"]
    """euler_maruyama: the plainest solver of the reverse SDE (Song et al. 2021b)."""

    def rule(self, at_ratio: AtRatio) -> Rule:
        """See `Sampler`."""
        return euler_maruyama
