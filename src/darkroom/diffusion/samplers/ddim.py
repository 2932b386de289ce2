"""Denoising diffusion implicit models (Song et al. 2021a)."""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from darkroom.diffusion.samplers._base import AtRatio, Rule, Sampler
from darkroom.diffusion.samplers._first_order import first_order


class DDIM(Sampler):
    """`first_order` with as much noise as asked for."""

    kind: Literal["ddim"]
    """ddim: denoising diffusion implicit models (Song et al. 2021a, eq. 12)."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How much noise it adds, from 0, none, to 1, as much as ddpm."""

    def rule(self, at_ratio: AtRatio) -> Rule:
        """See `Sampler`."""
        return partial(first_order, eta=self.eta)
