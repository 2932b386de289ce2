"""The contract of samplers.

A sampler takes x at levels[0], where alpha may be 0, to levels[-1]. With eps = (x - alpha * x0) / sigma, the
first-order rule x <- alpha' * x0 + sigma' * eps is DDIM (Song et al. 2021a, "Denoising diffusion implicit models", eq.
12 with eta = 0) and, read in the coordinates x / alpha and s = sigma / alpha, Euler's method on dx/ds = eps: one rule
under two names. Song et al. 2021b is "Score-based generative modeling through stochastic differential equations".
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from darkroom.config.sampling import SamplerOptions

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.diffusion.schedule import Level

Denoise = Callable[["Tensor", "Level"], "Tensor"]  # x (N, C, H, W) at a level -> the expected x0 (N, C, H, W)
Noise = Callable[[int], "Tensor"]  # 0, 1, 2, … -> Gaussian noise shaped like x, another for each number
OnStep = Callable[[int, "Tensor", "Tensor"], None]  # (step, x after the step, x0 of the step)
AtRatio = Callable[[float], "Level"]  # sigma / alpha -> the process' level
PURE_NOISE = 1000.0  # sigma / alpha; linear schedules begin at 15 to 160, a cosine schedule at 20,000


class Rule(Protocol):
    """An update rule."""

    def __call__(
        self, denoise: Denoise, x: "Tensor", levels: "Sequence[Level]", noise: Noise, on_step: OnStep
    ) -> "Tensor":
        """Take x (N, C, H, W) from levels[0] to levels[-1].

        Args:
            x: a sample at levels[0].
            levels: alpha and sigma as floats, noise falling. Only the first may have alpha 0 (not for samplers that
                need a noise prediction), only the last sigma 0.
            noise: called by the samplers that add noise, and by no other.
            on_step: called after each step with (step, x, the x0 it was based on).
        """
        ...


class Sampler(SamplerOptions, ABC):
    """A rule with its options, which goes down a grid of levels and knows nothing of networks, schedules or prompts."""

    @abstractmethod
    def rule(self, at_ratio: AtRatio) -> Rule:
        """The update rule with the options of this sampler.

        Args:
            at_ratio: the process' level of a sigma / alpha, for samplers that choose levels of their own.
        """


def predicted_noise(x: "Tensor", x0: "Tensor", level: "Level") -> "Tensor":
    """The eps of x = alpha * x0 + sigma * eps."""
    return (x - level.alpha * x0) / level.sigma
