"""Noise levels, x = alpha * x0 + sigma * eps, and the schedules of discrete times that order them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from darkroom.config.choices import USUAL_TIMES
from darkroom.config.diffusion import BetaSchedule, CosineSchedule, VPProcess


class Level(NamedTuple):
    """A noise level: x = alpha * x0 + sigma * eps, eps ~ N(0, I).

    Floats on a sampler's grid; tensors that broadcast against x, shape (N, 1, 1, 1), in training.
    """

    alpha: float | Tensor
    sigma: float | Tensor


CLEAN = Level(1.0, 0.0)


def betas_of(schedule: BetaSchedule | CosineSchedule, n: int) -> Tensor:
    """The betas (n,) of n discrete times, float64."""
    if isinstance(schedule, CosineSchedule):

        def alpha_bar(s: Tensor) -> Tensor:
            return torch.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2

        t = torch.arange(n + 1, dtype=torch.float64) / n
        return (1 - alpha_bar(t[1:]) / alpha_bar(t[:-1])).clamp(max=0.999)
    first, last = schedule.beta_start, schedule.beta_end
    if schedule.kind == "linear":
        betas = torch.linspace(first, last, n, dtype=torch.float64)
    elif schedule.kind == "scaled_linear":
        betas = torch.linspace(first**0.5, last**0.5, n, dtype=torch.float64) ** 2
    else:
        betas = first + (last - first) * torch.sigmoid(torch.linspace(-6, 6, n, dtype=torch.float64))
    return betas * (USUAL_TIMES / n) if schedule.scale_betas else betas


class DiscreteVP:
    """The variance-preserving chain of DDPM: alpha^2 + sigma^2 = 1 at `num_train_timesteps` discrete times.

    alphas_cumprod: (T,) float64, the product of 1 - beta: alpha(t)^2. Between the discrete times the log-SNR is
    interpolated linearly, so that samplers may stand at any level. See `process` for the rest.

    Where the process is rescaled to end at alpha 0, alpha / sigma, whose log has no end there, is interpolated between
    the last two times instead.
    """

    spread = 1.0

    def __init__(self, config: VPProcess) -> None:
        betas = betas_of(config.schedule, config.num_train_timesteps)
        self.num_train_timesteps = config.num_train_timesteps
        self.alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        if config.rescale_betas_zero_snr:
            alphas = self.alphas_cumprod.sqrt()
            self.alphas_cumprod = ((alphas - alphas[-1]) * (alphas[0] / (alphas[0] - alphas[-1]))) ** 2
        self._tables: dict[torch.device, tuple[Tensor, ...]] = {}  # alpha and sigma, float32
        self._half_log_snr = 0.5 * (self.alphas_cumprod.log() - torch.log1p(-self.alphas_cumprod))  # log(alpha / sigma)

    @property
    def latest(self) -> float:
        """The last time."""
        return float(self.num_train_timesteps - 1)

    def levels(self, t: Tensor) -> Level:
        """The levels of integer times t (N,), shaped (N, 1, 1, 1), float32, on t's device."""
        if t.device not in self._tables:
            tables = self.alphas_cumprod.sqrt().float(), (1 - self.alphas_cumprod).sqrt().float()
            self._tables[t.device] = tuple(table.to(t.device) for table in tables)
        alpha, sigma = (table[t].view(-1, 1, 1, 1) for table in self._tables[t.device])
        return Level(alpha, sigma)

    def level(self, t: float) -> Level:
        """The level at a time t in [0, T - 1], which may lie between two discrete times."""
        low = min(max(math.floor(t), 0), self.num_train_timesteps - 1)
        high = min(low + 1, self.num_train_timesteps - 1)
        a, b = float(self._half_log_snr[low]), float(self._half_log_snr[high])
        if low == high or b > -math.inf:
            log_ratio = a + (t - low) * (b - a) if low < high else a
        else:
            log_ratio = a + math.log1p(low - t)
        if log_ratio == -math.inf:
            return Level(0.0, 1.0)
        alpha_bar = 1 / (1 + math.exp(-2 * log_ratio))
        return Level(alpha_bar**0.5, (1 - alpha_bar) ** 0.5)

    def timestep(self, level: Level) -> float:
        """The time whose level has the log-SNR of `level`, clamped to [0, T - 1]: the inverse of `level`."""
        alpha, sigma = float(level.alpha), float(level.sigma)
        if sigma == 0:
            return 0.0
        if alpha == 0:
            return self.latest
        value = torch.tensor(math.log(alpha / sigma), dtype=torch.float64)
        falling = self._half_log_snr
        high = int(torch.searchsorted(-falling, -value))  # the first time that is at least as noisy
        if high == 0:
            return 0.0
        if high == self.num_train_timesteps:
            return self.latest
        a, b = float(falling[high - 1]), float(falling[high])
        if b == -math.inf:
            return high - 1 - math.expm1(float(value) - a)
        return high - 1 + (a - float(value)) / (a - b)

    def at_ratio(self, ratio: float) -> Level:
        """The level of this sigma / alpha."""
        return Level((1 + ratio**2) ** -0.5, ratio * (1 + ratio**2) ** -0.5)

    def training_times(self, position: Tensor) -> Tensor:
        """(N,) in [0, 1) -> the integer times there; each is as likely."""
        return (position * self.num_train_timesteps).long().clamp(max=self.num_train_timesteps - 1)
