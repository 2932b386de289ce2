"""Langevin dynamics between the steps of the reverse SDE (Song et al. 2021b)."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from darkroom.diffusion.samplers._base import AtRatio, Denoise, Noise, OnStep, Rule, Sampler, predicted_noise
from darkroom.diffusion.samplers._reverse_sde import reverse_sde_step

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.diffusion.schedule import Level


def predictor_corrector(
    denoise: Denoise, x: "Tensor", levels: "Sequence[Level]", noise: Noise, on_step: OnStep, snr: float = 0.16
) -> "Tensor":
    """Song et al. 2021b, algorithms 2 and 4: at each level a step of Langevin dynamics, then `reverse_sde_step`.

    The step's size is 2 (snr |z| / |g|)^2, with the score g and the norm sqrt(D) of unit noise z, for each sample by
    itself, so that none depends on its batch. It is at most sigma^2: beyond, where a sample of few elements meets a
    score near 0, Langevin dynamics overshoots.
    """
    for i, (now, after) in enumerate(pairwise(levels)):
        eps = predicted_noise(x, denoise(x, now), now)
        size = eps.square().mean(dim=tuple(range(1, x.ndim)), keepdim=True)
        step = (2 * snr**2 / size).clamp(max=1)  # in units of sigma^2
        x = x - now.sigma * (step * eps - (2 * step).sqrt() * noise(2 * i))
        x0 = denoise(x, now)
        x = reverse_sde_step(x, x0, now, after, partial(noise, 2 * i + 1))
        on_step(i, x, x0)
    return x


class PredictorCorrector(Sampler):
    """Two evaluations a step."""

    kind: Literal["predictor_corrector"]
    """predictor_corrector: Langevin dynamics at each level, at two evaluations a step (Song et al. 2021b)."""
    snr: Annotated[float, Field(gt=0, lt=1)] = 0.16
    """Of the corrector's steps; Song et al. 2021b's, for variance-exploding processes."""

    def rule(self, at_ratio: AtRatio) -> Rule:
        """See `Sampler`."""
        return partial(predictor_corrector, snr=self.snr)
