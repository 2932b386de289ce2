"""Ancestral sampling (Ho et al. 2020, "Denoising diffusion probabilistic models")."""

from functools import partial
from typing import Literal

from darkroom.diffusion.samplers._base import AtRatio, Rule, Sampler
from darkroom.diffusion.samplers._first_order import first_order


class DDPM(Sampler):
    """DDPM's algorithm 2, between any two levels."""

    kind: Literal["ddpm"]
    """ddpm: ancestral sampling (Ho et al. 2020, algorithm 2), between any two levels."""
    variance: Literal["beta_tilde", "beta"] = "beta_tilde"
    """Of the noise it adds: beta_tilde, the posterior's, or beta (Ho et al. 2020, section 3.2)."""

    def rule(self, at_ratio: AtRatio) -> Rule:
        """See `Sampler`."""
        return partial(first_order, eta=1.0, variance=self.variance)
