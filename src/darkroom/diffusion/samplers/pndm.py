"""Pseudo numerical methods (Liu et al. 2022), without their Runge-Kutta steps."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

from darkroom.diffusion.samplers._base import AtRatio, Denoise, Noise, OnStep, Rule, Sampler, predicted_noise

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.diffusion.schedule import Level


# Adams-Bashforth on even steps: weights of the newest and the older values, by how many there are.
ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def plms(denoise: Denoise, x: "Tensor", levels: "Sequence[Level]", noise: Noise, on_step: OnStep) -> "Tensor":
    """Pseudo linear multistep (Liu et al. 2022, "Pseudo numerical methods for diffusion models", eq. 9 and 12).

    eps is extrapolated from the last four steps as if they were of equal length in time. The first step is repeated
    with the mean of the eps at both its ends.
    """
    history: list[Tensor] = []  # eps, newest first
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = denoise(x, now)
        history = [predicted_noise(x, x0, now), *history[: len(ADAMS_BASHFORTH) - 1]]
        weights = ADAMS_BASHFORTH[len(history) - 1]
        eps = sum((w * e for w, e in zip(weights, history, strict=True)), x.new_zeros(()))
        if i == 0 and len(levels) > 2:
            guess = _transfer(x, eps, now, after)
            eps = (eps + predicted_noise(guess, denoise(guess, after), after)) / 2
        x = _transfer(x, eps, now, after)
        on_step(i, x, x0)
    return x


def _transfer(x: "Tensor", eps: "Tensor", now: "Level", after: "Level") -> "Tensor":
    """Where the first-order rule takes x if the noise in it is eps."""
    return after.alpha * ((x - now.sigma * eps) / now.alpha) + after.sigma * eps


class PNDM(Sampler):
    """Extrapolates the network's own noise prediction over steps that are even in time."""

    kind: Literal["pndm"]
    """pndm: pseudo linear multistep, over steps that are even in time (Liu et al. 2022)."""

    needs_noise_prediction: ClassVar[bool] = True
    takes_karras: ClassVar[bool] = False

    def rule(self, at_ratio: AtRatio) -> Rule:
        """See `Sampler`."""
        return plms
