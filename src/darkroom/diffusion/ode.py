"""The probability flow as an ordinary differential equation, solved to a tolerance."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darkroom.core.errors import DarkroomError
from darkroom.diffusion.samplers._base import AtRatio, Denoise, Noise, OnStep
from darkroom.diffusion.schedule import Level

MOST_EVALUATIONS = 5000  # of the network: a trained one took 351 at a tolerance of 1e-5, with the rounding of bf16 1977
Vector = NDArray[np.float64]


def probability_flow(
    denoise: Denoise,
    x: Tensor,
    levels: Sequence[Level],
    noise: Noise,
    on_step: OnStep,
    tolerance: float,
    at_ratio: AtRatio,
) -> Tensor:
    """The probability flow (Song et al. 2021, "Score-based generative modeling through stochastic differential
    equations", eq. 13) by the Runge-Kutta pair of Dormand and Prince; into sigma 0 by E[x0 | x].

    Solved over the angle phi of (alpha, sigma): with y = x / |(alpha, sigma)| = cos(phi) x0 + sin(phi) eps, the flow is
    dy/dphi = cos(phi) eps - sin(phi) x0, the v of Salimans & Ho 2022, appendix D. It is smooth from noise alone to the
    last positive sigma, whatever the process. The solver chooses its own steps, for the batch as a whole.

    Args:
        x: a sample at levels[0].
        levels: where `on_step` is told of (step, x, the last x0); only the first and the last two matter to the result.
        tolerance: of y, relative to its size and absolute, as the root of the mean square over all its elements.
        at_ratio: the process' level of a sigma / alpha.

    Raises:
        DarkroomError: the tolerance is not reached.
    """
    from scipy.integrate import RK45

    noisy = [level for level in levels if level.sigma > 0]
    angles = [math.atan2(level.sigma, level.alpha) for level in noisy]
    velocity = _Velocity(denoise, x, at_ratio, tolerance)
    step = 0
    if len(noisy) > 1:
        solver: Any = RK45(
            velocity, angles[0], _vector(x / _size(noisy[0])), angles[-1], rtol=tolerance, atol=tolerance
        )
        while solver.status == "running":
            solver.step()
            if solver.status == "failed":
                raise velocity.unsolved()
            between = solver.dense_output()
            while step < len(noisy) - 1 and angles[step + 1] >= solver.t:
                step += 1
                x = velocity.tensor(between(angles[step]), noisy[step])
                on_step(step - 1, x, velocity.x0)
    if len(noisy) < len(levels):
        x0 = denoise(x, noisy[-1])
        x = levels[-1].alpha * x0
        on_step(step, x, x0)
    return x


class _Velocity:
    """(phi, y) -> dy/dphi, of vectors; keeps the last x0, and counts.

    like: a tensor in the shape, of the kind and on the device that `denoise` takes.
    """

    def __init__(
        self,
        denoise: Denoise,
        like: Tensor,
        at_ratio: AtRatio,
        tolerance: float,
    ) -> None:
        self.denoise, self.like, self.at_ratio, self.tolerance = denoise, like, at_ratio, tolerance
        self.x0, self.evaluations = like, 0

    def __call__(self, angle: float, y: Vector) -> Vector:
        if self.evaluations == MOST_EVALUATIONS:
            raise self.unsolved()
        self.evaluations += 1
        level = self.at_ratio(math.tan(angle))
        x = self.tensor(y, level)
        self.x0 = self.denoise(x, level)
        return _vector((math.cos(angle) / _size(level) * x - self.x0) / math.sin(angle))

    def tensor(self, y: Vector, level: Level) -> Tensor:
        """The x at a level that y stands for."""
        return _size(level) * torch.from_numpy(y).reshape(self.like.shape).to(self.like)

    def unsolved(self) -> DarkroomError:
        return DarkroomError(
            f"tolerance = {self.tolerance}: not reached by ode in {self.evaluations} evaluations of the network; "
            "raise it, or draw with precision fp32"
        )


def _vector(x: Tensor) -> Vector:
    return x.double().flatten().cpu().numpy()


def _size(level: Level) -> float:
    return math.hypot(level.alpha, level.sigma)
