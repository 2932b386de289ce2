"""The probability flow as an ordinary differential equation, solved to a tolerance (Song et al. 2021b)."""

from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from darkroom.diffusion.samplers._base import AtRatio, Rule, Sampler


class ODE(Sampler):
    """Chooses its own steps; num_inference_steps says only how often it is shown how far it is."""

    kind: Literal["ode"]
    """ode: the probability flow by Runge and Kutta, in steps of its own; num_inference_steps are shown."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """How exact it is, relative to the size of a sample, and absolute; takes as many evaluations as that asks for."""

    needs_both_ends: ClassVar[bool] = True

    def rule(self, at_ratio: AtRatio) -> Rule:
        """See `Sampler`."""
        from darkroom.diffusion.ode import probability_flow

        return partial(probability_flow, tolerance=self.tolerance, at_ratio=at_ratio)
