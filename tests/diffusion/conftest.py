"""A world in which the best denoiser is known, pictures whose every element is drawn from one Gaussian, and the
processes that samplers walk through it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from darkroom.diffusion.process import Process
from darkroom.diffusion.schedule import Level
from tests.support.diffusion import make_flow, make_ve, make_vp

PROCESSES: dict[str, Process] = {
    "vp": make_vp("linear", 0.0001, 0.02, 1000),
    "zero snr": make_vp("linear", 0.0001, 0.02, 1000, rescale_betas_zero_snr=True),
    "ve": make_ve(25.0, 1e-3),
    "flow": make_flow(0.001),
}


@dataclass(frozen=True)
class Gaussian:
    """x0 ~ N(mean, std^2), and everything that follows for x = alpha * x0 + sigma * eps."""

    mean: float
    std: float

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x] (Karras et al. 2022, eq. 3 and appendix B.3, for any alpha)."""
        gain = level.alpha * self.std**2 / self.variance(level)
        return self.mean + gain * (x - level.alpha * self.mean)

    def variance(self, level: Level) -> float:
        """Of x."""
        return float(level.alpha**2 * self.std**2 + level.sigma**2)

    def flow(self, x: Tensor, start: Level, end: Level) -> Tensor:
        """Where the probability flow takes x: it keeps its quantile."""
        ratio = (self.variance(end) / self.variance(start)) ** 0.5
        return end.alpha * self.mean + ratio * (x - start.alpha * self.mean)


@pytest.fixture
def gaussian() -> type[Gaussian]:
    return Gaussian


@pytest.fixture(params=PROCESSES.values(), ids=PROCESSES)
def process(request: pytest.FixtureRequest) -> Process:
    """One of each kind."""
    made: Process = request.param
    return made


@pytest.fixture
def even_levels() -> Callable[[int, Process], list[Level]]:
    """n steps of a process evenly spaced in log(alpha / sigma), from -2 to 2: between two noisy levels."""
    return lambda n, process: [process.at_ratio(math.exp(2 - 4 * i / n)) for i in range(n + 1)]


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    """Standard normal numbers, float64, always the same."""

    def normal(*shape: int, seed: int = 0) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    return normal
