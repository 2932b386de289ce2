"""DPM-Solver++(2M) (Lu et al. 2022)."""

from typing import Literal

from darkroom.diffusion.samplers._base import AtRatio, Rule, Sampler
from darkroom.diffusion.samplers._dpm_solver import dpm_solver_2m


class DPMSolver2M(Sampler):
    """A solver of second order at one evaluation a step."""

    kind: Literal["dpmpp_2m"]
    """dpmpp_2m: of second order at one evaluation a step (Lu et al. 2022, algorithm 2)."""

    def rule(self, at_ratio: AtRatio) -> Rule:
        """See `Sampler`."""
        return dpm_solver_2m
