"""SDE-DPM-Solver++(2M) (Lu et al. 2022, appendix A)."""

from functools import partial
from typing import Literal

from darkroom.diffusion.samplers._base import AtRatio, Rule, Sampler
from darkroom.diffusion.samplers._dpm_solver import dpm_solver_2m


class DPMSolver2MSDE(Sampler):
    """The solver of the reverse SDE."""

    kind: Literal["dpmpp_2m_sde"]
    """dpmpp_2m_sde: of the reverse SDE (Lu et al. 2022, appendix A)."""

    def rule(self, at_ratio: AtRatio) -> Rule:
        """See `Sampler`."""
        return partial(dpm_solver_2m, eta=1.0)
