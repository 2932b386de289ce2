"""Euler's method with DDPM's noise."""

from functools import partial
from typing import Literal

from darkroom.diffusion.samplers._base import AtRatio, Rule, Sampler
from darkroom.diffusion.samplers._first_order import first_order


class EulerAncestral(Sampler):
    """The same rule as ddpm with the variance beta_tilde, under k-diffusion's name."""

    kind: Literal["euler_ancestral"]
    """euler_ancestral: k-diffusion's name for the rule of ddpm with the variance beta_tilde."""

    def rule(self, at_ratio: AtRatio) -> Rule:
        """See `Sampler`."""
        return partial(first_order, eta=1.0)
