"""Noise levels, x = alpha * x0 + sigma * eps, and the schedules of discrete times that order them."""

import math
from typing import NamedTuple, assert_never

import torch
from torch import Tensor

from darkroom.config.choices import USUAL_TIMES, ScheduleName
from darkroom.core.errors import DarkroomError


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
    if schedule == "sigmoid":  # GeoDiff (Xu et al. 2022); linear between -6 and 6
        return beta_start + (beta_end - beta_start) * torch.sigmoid(torch.linspace(-6, 6, n, dtype=torch.float64))
    assert_never(schedule)


class DiscreteVP:
    """The variance-preserving chain of DDPM: alpha^2 + sigma^2 = 1 at `num_train_timesteps` discrete times.

    alphas_cumprod: (T,) float64, the product of 1 - beta: alpha(t)^2. Between the discrete times the log-SNR is
    interpolated linearly, so that samplers may stand at any level. See `process` for the rest.

    Args:
        schedule: "linear", "scaled_linear", "sigmoid", or "cosine" (which ignores beta_start and beta_end).
        beta_start, beta_end: the first and last beta, in (0, 1).
        num_train_timesteps: T.
        scale_betas: multiply the betas by 1000 / T, so that few times end in as much noise as 1000 do.
        rescale_betas_zero_snr: shift and scale alpha so that it ends at 0 (Lin et al. 2024, algorithm 1); between the
            last two times alpha / sigma, whose log has no end there, is interpolated instead.

    Raises:
        DarkroomError: scaled betas of 1 and more, or of a schedule that does not read them.
    """

    spread = 1.0

    def __init__(
        self,
        schedule: ScheduleName,
        beta_start: float,
        beta_end: float,
        num_train_timesteps: int,
        *,
        scale_betas: bool = False,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        if scale_betas and schedule == "cosine":
            raise DarkroomError("scale_betas = True: the cosine schedule reads no betas; give False")
        betas = _betas(schedule, beta_start, beta_end, num_train_timesteps)
        if scale_betas:
            if beta_end * USUAL_TIMES >= num_train_timesteps:
                raise DarkroomError(
                    f"scale_betas = True: beta_end = {beta_end} becomes {beta_end * USUAL_TIMES / num_train_timesteps}"
                    f" with num_train_timesteps = {num_train_timesteps}, and a beta is below 1; lower it"
                )
            betas = betas * (USUAL_TIMES / num_train_timesteps)
        self.num_train_timesteps = num_train_timesteps
        self.alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        if rescale_betas_zero_snr:
            alphas = self.alphas_cumprod.sqrt()
            self.alphas_cumprod = ((alphas - alphas[-1]) * (alphas[0] / (alphas[0] - alphas[-1]))) ** 2
        self._tables: dict[torch.device, tuple[Tensor, ...]] = {}  # alpha and sigma, float32
        self._half_log_snr = 0.5 * (self.alphas_cumprod.log() - torch.log1p(-self.alphas_cumprod))  # log(alpha / sigma)

    @property
    def latest(self) -> float:
        """The last time."""
        return float(self.num_train_timesteps - 1)

    def at(self, t: Tensor) -> Level:
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
