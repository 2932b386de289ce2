"""Samplers: update rules that walk a grid of levels and know nothing of networks, schedules or prompts.

Each takes x at levels[0] to levels[-1]. With eps = (x - alpha * x0) / sigma, the first-order rule
x <- alpha' * x0 + sigma' * eps is DDIM (Song et al. 2021, eq. 12 with eta = 0) and, read in the coordinates x / alpha
and s = sigma / alpha, Euler's method on dx/ds = eps: one rule under two names.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from darkroom.core.choices import SamplerName, Variance
from darkroom.diffusion.denoiser import Condition, Denoise
from darkroom.diffusion.schedule import Level

AtLevel = Callable[[Tensor, Level], Tensor]  # (x, level) -> x0, the condition already given
Noise = Callable[[int], Tensor]  # step -> Gaussian noise shaped like x
OnStep = Callable[[int, Tensor, Tensor], None]  # (step, x after the step, x0 of the step)

PURE_NOISE = 1000.0  # sigma / alpha; linear schedules begin at 15 to 160, a cosine schedule at 20,000


def _eps(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    return (x - level.alpha * x0) / level.sigma


def _first_order(
    d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep, eta: float = 0.0, wide: bool = False
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12 and 16) between any two levels.

    eta = 1 draws from q(x' | x, x0), DDPM's posterior with the variance beta-tilde (Ho et al. 2020, eq. 6-7), which is
    also Euler-ancestral. wide: the noise has DDPM's other variance, beta, around the same mean.
    """
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = d(x, now)
        beta = now.sigma**2 - (now.alpha / after.alpha) ** 2 * after.sigma**2
        variance = eta**2 * (beta * after.sigma**2 / now.sigma**2)
        kept = math.sqrt(max(after.sigma**2 - variance, 0.0)) if variance > 0 else after.sigma
        x = after.alpha * x0 + kept * _eps(x, x0, now)
        if variance > 0:
            x = x + math.sqrt(beta if wide else variance) * noise(i)
        on(i, x, x0)
    return x


def _heun(d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep) -> Tensor:
    """Heun's method in x / alpha over sigma / alpha (Karras et al. 2022, algorithm 1); Euler's into sigma 0.

    Also Euler's out of (almost) pure noise: there sigma / alpha falls by orders of magnitude in one step, and half of
    that times a small change of slope would drown the picture.
    """
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = d(x, now)
        slope = _eps(x, x0, now)
        if after.sigma > 0 and now.sigma < PURE_NOISE * now.alpha:
            guess = after.alpha * x0 + after.sigma * slope
            slope = (slope + _eps(guess, d(guess, after), after)) / 2
        change = after.sigma / after.alpha - now.sigma / now.alpha
        x = after.alpha * (x / now.alpha + change * slope)
        on(i, x, x0)
    return x


def _dpmpp_2m(d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep, eta: float = 0.0) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): multistep in log(alpha / sigma), first order at both ends.

    eta = 1 is the solver of the reverse SDE (appendix A of the paper, "SDE-DPM-Solver++(2M)") instead of the flow's.
    """
    before: Tensor | None = None
    h_before = 0.0
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = d(x, now)
        if after.sigma == 0:
            x = after.alpha * x0
        else:
            h = math.log(after.alpha / after.sigma) - math.log(now.alpha / now.sigma)
            r = h_before / h
            ahead = x0 if before is None else x0 + (x0 - before) / (2 * r)
            kept = (after.sigma / now.sigma) * math.exp(-eta * h)
            x = kept * x - after.alpha * math.expm1(-(1 + eta) * h) * ahead
            if eta > 0:
                x = x + after.sigma * math.sqrt(-math.expm1(-2 * eta * h)) * noise(i)
            before, h_before = x0, h
        on(i, x, x0)
    return x


# Adams-Bashforth on even steps: weights of the newest and the older values, by how many there are.
ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def _plms(d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep) -> Tensor:
    """Pseudo linear multistep (Liu et al. 2022, "Pseudo numerical methods for diffusion models", eq. 9 and 12).

    eps is extrapolated from the last four steps as if they were of equal length in time. The first step is repeated
    with the mean of the eps at both its ends.
    """
    history: list[Tensor] = []  # eps, newest first
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = d(x, now)
        history = [_eps(x, x0, now), *history[: len(ADAMS_BASHFORTH) - 1]]
        eps = sum((w * e for w, e in zip(ADAMS_BASHFORTH[len(history) - 1], history, strict=True)), torch.zeros(()))
        if i == 0 and len(levels) > 2:
            guess = _transfer(x, eps, now, after)
            eps = (eps + _eps(guess, d(guess, after), after)) / 2
        x = _transfer(x, eps, now, after)
        on(i, x, x0)
    return x


def _transfer(x: Tensor, eps: Tensor, now: Level, after: Level) -> Tensor:
    """Where the first-order rule takes x if the noise in it is eps."""
    return after.alpha * ((x - now.sigma * eps) / now.alpha) + after.sigma * eps


SAMPLERS: dict[SamplerName, Callable[..., Tensor]] = {
    "ddpm": partial(_first_order, eta=1.0),
    "ddim": _first_order,
    "euler": _first_order,
    "euler_ancestral": partial(_first_order, eta=1.0),
    "heun": _heun,
    "dpmpp_2m": _dpmpp_2m,
    "dpmpp_2m_sde": partial(_dpmpp_2m, eta=1.0),
    "pndm": _plms,
}


def ignore_step(step: int, x: Tensor, x0: Tensor) -> None:
    """Watches nothing."""


@torch.no_grad()
def sample(
    sampler: SamplerName,
    denoise: Denoise,
    x: Tensor,
    levels: Sequence[Level],
    condition: Condition,
    noise: Noise,
    on_step: OnStep,
    *,
    eta: float = 0.0,
    variance: Variance = "beta_tilde",
) -> Tensor:
    """Walk x (N, C, H, W) from levels[0] to levels[-1].

    Args:
        x: a sample at levels[0].
        levels: alpha and sigma as floats, noise falling, alpha > 0.
        noise: called with the step by the samplers that add noise, and by no other.
        on_step: called after each step with (step, x, the x0 it was based on).
        eta: of ddim, 0 (no noise is added) to 1 (as much as by ddpm). variance: of ddpm.
    """
    own: dict[str, dict[str, Any]] = {"ddim": {"eta": eta}, "ddpm": {"wide": variance == "beta"}}
    return SAMPLERS[sampler](
        lambda x, level: denoise(x, level, condition), x, levels, noise, on_step, **own.get(sampler, {})
    )
