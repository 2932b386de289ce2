"""Euler's method on the probability flow."""

from typing import Literal

from darkroom.diffusion.samplers._base import AtRatio, Rule, Sampler
from darkroom.diffusion.samplers._first_order import first_order


class Euler(Sampler):
    """Euler's method: `first_order` without noise."""

    kind: Literal["euler"]
    """euler: Euler's method (Karras et al. 2022, algorithm 1 without lines 6 to 8), which is ddim without noise."""

    def rule(self, at_ratio: AtRatio) -> Rule:
        """See `Sampler`."""
        return first_order
