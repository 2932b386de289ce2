"""Noise levels and the schedules that order them: x = alpha * x0 + sigma * eps."""

import math
from typing import NamedTuple, assert_never

import torch
from torch import Tensor

from darkroom.core.choices import ScheduleName


class Level(NamedTuple):
    """A noise level: x = alpha * x0 + sigma * eps, eps ~ N(0, I).

    Floats on a sampler's grid; tensors that broadcast against x, shape (N, 1, 1, 1), in training.
    """

    alpha: float | Tensor
    sigma: float | Tensor


CLEAN = Level(1.0, 0.0)


def _betas(schedule: ScheduleName, beta_start: float, beta_end: float, n: int) -> Tensor:
    if schedule == "linear":  # DDPM (Ho et al. 2020), section 4
        return torch.linspace(beta_start, beta_end, n, dtype=torch.float64)
    if schedule == "scaled_linear":  # latent diffusion: linear in sqrt(beta)
        return torch.linspace(beta_start**0.5, beta_end**0.5, n, dtype=torch.float64) ** 2
    if schedule == "cosine":  # improved DDPM (Nichol & Dhariwal 2021), eq. 17; beta clipped at 0.999

        def alpha_bar(s: Tensor) -> Tensor:
            return torch.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2

        t = torch.arange(n + 1, dtype=torch.float64) / n
        return (1 - alpha_bar(t[1:]) / alpha_bar(t[:-1])).clamp(max=0.999)
    assert_never(schedule)


class DiscreteVP:
    """The variance-preserving chain of DDPM: alpha^2 + sigma^2 = 1 at `num_train_timesteps` discrete times.

    alphas_cumprod: (T,) float64, the product of 1 - beta: alpha(t)^2. Between the discrete times the log-SNR is
    interpolated linearly, so that samplers may stand at any level.

    Args:
        schedule: "linear", "scaled_linear" or "cosine" (which ignores beta_start and beta_end).
        beta_start, beta_end: the first and last beta, in (0, 1).
        num_train_timesteps: T.
    """

    def __init__(self, schedule: ScheduleName, beta_start: float, beta_end: float, num_train_timesteps: int) -> None:
        self.num_train_timesteps = num_train_timesteps
        self.alphas_cumprod = torch.cumprod(1 - _betas(schedule, beta_start, beta_end, num_train_timesteps), dim=0)
        self._half_log_snr = 0.5 * (self.alphas_cumprod.log() - torch.log1p(-self.alphas_cumprod))  # log(alpha / sigma)

    def at(self, t: Tensor) -> Level:
        """The levels of integer times t (N,), shaped (N, 1, 1, 1), float32, on t's device."""
        alpha_bar = self.alphas_cumprod[t.cpu()].to(t.device).view(-1, 1, 1, 1)
        return Level(alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float())

    def level(self, t: float) -> Level:
        """The level at a time t in [0, T - 1], which may lie between two discrete times."""
        low = min(max(math.floor(t), 0), self.num_train_timesteps - 1)
        high = min(low + 1, self.num_train_timesteps - 1)
        a, b = float(self._half_log_snr[low]), float(self._half_log_snr[high])
        alpha_bar = 1 / (1 + math.exp(-2 * (a + (t - low) * (b - a))))
        return Level(alpha_bar**0.5, (1 - alpha_bar) ** 0.5)

    def timestep(self, level: Level) -> float:
        """The time whose level has the log-SNR of `level`, clamped to [0, T - 1]: the inverse of `level`."""
        alpha, sigma = float(level.alpha), float(level.sigma)
        if sigma == 0:
            return 0.0
        if alpha == 0:
            return float(self.num_train_timesteps - 1)
        value = torch.tensor(math.log(alpha / sigma), dtype=torch.float64)
        falling = self._half_log_snr
        high = int(torch.searchsorted(-falling, -value))  # the first time that is at least as noisy
        if high == 0:
            return 0.0
        if high == self.num_train_timesteps:
            return float(self.num_train_timesteps - 1)
        a, b = float(falling[high - 1]), float(falling[high])
        return high - 1 + (a - float(value)) / (a - b)
