"""Processes in continuous time. Their times are 1000 times the papers' t in [0, 1]: the range that networks are made
for, whatever the process."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from darkroom.config.choices import USUAL_TIMES
from darkroom.config.diffusion import FlowProcess, VEProcess
from darkroom.diffusion.schedule import Level


class Continuous(ABC):
    """What continuous processes share; see `process`.

    earliest: 1000 t_min, the least time that is trained, and the last before the clean picture that a grid with both
        ends has.

    Args:
        t_min: how near training comes to both ends of [0, 1].
    """

    latest = float(USUAL_TIMES)

    def __init__(self, t_min: float) -> None:
        self.t_min, self.earliest = t_min, t_min * self.latest

    @property
    @abstractmethod
    def spread(self) -> float:
        """See `process`."""

    @abstractmethod
    def at_ratio(self, ratio: float) -> Level:
        """The level of this sigma / alpha."""

    @abstractmethod
    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Of the papers' times in [0, 1], float64."""

    @abstractmethod
    def _published_time(self, level: Level) -> float:
        """The papers' time of a level's sigma / alpha."""

    def levels(self, t: Tensor) -> Level:
        """The levels of times t (N,), shaped (N, 1, 1, 1), float32, on t's device."""
        exact = t.cpu() if t.device.type == "mps" else t  # MPS has no float64
        alpha, sigma = self._alpha_sigma(exact.double().view(-1, 1, 1, 1) / self.latest)
        return Level(alpha.float().to(t.device), sigma.float().to(t.device))

    def level(self, t: float) -> Level:
        """The level at a time t in [0, 1000]."""
        alpha, sigma = self._alpha_sigma(torch.tensor(t, dtype=torch.float64) / self.latest)
        return Level(float(alpha), float(sigma))

    def timestep(self, level: Level) -> float:
        """The time whose level has the sigma / alpha of `level`, at most 1000: the inverse of `level`."""
        return self.latest * min(self._published_time(level), 1.0)

    def training_times(self, position: Tensor) -> Tensor:
        """(N,) in [0, 1) -> the times there, uniform on [t_min, 1 - t_min] * 1000."""
        return self.latest * (self.t_min + position * (1 - 2 * self.t_min))


class VE(Continuous):
    """The variance-exploding SDE dx = sigma^t dw (Song et al. 2021, "Score-based generative modeling through
    stochastic differential equations", in the form of its authors' tutorial): alpha = 1,
    sigma(t)^2 = (sigma^(2t) - 1) / (2 ln sigma).
    """

    def __init__(self, config: VEProcess) -> None:
        super().__init__(config.t_min)
        self._rate = 2 * math.log(config.sigma)

    @property
    def spread(self) -> float:
        return float(self.level(self.latest).sigma)

    def at_ratio(self, ratio: float) -> Level:
        return Level(1.0, ratio)

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), (torch.expm1(self._rate * t) / self._rate).sqrt()

    def _published_time(self, level: Level) -> float:
        if level.alpha == 0:
            return math.inf
        return math.log1p(self._rate * float(level.sigma / level.alpha) ** 2) / self._rate


class Flow(Continuous):
    """Rectified flow (Liu et al. 2022; Lipman et al. 2022 with sigma_min 0): alpha = 1 - t, sigma = t."""

    spread = 1.0

    def __init__(self, config: FlowProcess) -> None:
        super().__init__(config.t_min)

    def at_ratio(self, ratio: float) -> Level:
        return Level(1 / (1 + ratio), ratio / (1 + ratio))

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    def _published_time(self, level: Level) -> float:
        return float(level.sigma / (level.alpha + level.sigma))
