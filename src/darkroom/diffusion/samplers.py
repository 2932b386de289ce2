"""Samplers: update rules that walk a grid of levels and know nothing of networks, schedules or prompts.

Each takes x at levels[0] to levels[-1]. With eps = (x - alpha * x0) / sigma, the first-order rule
x <- alpha' * x0 + sigma' * eps is DDIM (Song et al. 2021, eq. 12 with eta = 0) and, read in the coordinates x / alpha
and s = sigma / alpha, Euler's method on dx/ds = eps: one rule under two names.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from darkroom.core.choices import SamplerName
from darkroom.diffusion.denoiser import Condition, Denoise
from darkroom.diffusion.schedule import Level

AtLevel = Callable[[Tensor, Level], Tensor]  # (x, level) -> x0, the condition already given
Noise = Callable[[int], Tensor]  # step -> Gaussian noise shaped like x
OnStep = Callable[[int, Tensor, Tensor], None]  # (step, x after the step, x0 of the step)


def _eps(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    return (x - level.alpha * x0) / level.sigma


def _first_order(d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep) -> Tensor:
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = d(x, now)
        x = after.alpha * x0 + after.sigma * _eps(x, x0, now)
        on(i, x, x0)
    return x


def _ddpm(d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep) -> Tensor:
    """Ancestral sampling from q(x' | x, x0), the posterior of Ho et al. 2020, eq. 6-7, between any two levels."""
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = d(x, now)
        ratio = now.alpha / after.alpha
        step_variance = now.sigma**2 - ratio**2 * after.sigma**2
        variance = step_variance * after.sigma**2 / now.sigma**2
        x = after.alpha * x0 + math.sqrt(max(after.sigma**2 - variance, 0.0)) * _eps(x, x0, now)
        if variance > 0:
            x = x + math.sqrt(variance) * noise(i)
        on(i, x, x0)
    return x


def _heun(d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep) -> Tensor:
    """Heun's method in x / alpha over sigma / alpha (Karras et al. 2022, algorithm 1); Euler's into sigma 0."""
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = d(x, now)
        slope = _eps(x, x0, now)
        if after.sigma > 0:
            guess = after.alpha * x0 + after.sigma * slope
            slope = (slope + _eps(guess, d(guess, after), after)) / 2
        change = after.sigma / after.alpha - now.sigma / now.alpha
        x = after.alpha * (x / now.alpha + change * slope)
        on(i, x, x0)
    return x


def _dpmpp_2m(d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): multistep in log(alpha / sigma), first order at both ends."""
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
            x = (after.sigma / now.sigma) * x - after.alpha * math.expm1(-h) * ahead
            before, h_before = x0, h
        on(i, x, x0)
    return x


SAMPLERS: dict[SamplerName, Callable[..., Tensor]] = {
    "ddpm": _ddpm,
    "ddim": _first_order,
    "euler": _first_order,
    "heun": _heun,
    "dpmpp_2m": _dpmpp_2m,
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
) -> Tensor:
    """Walk x (N, C, H, W) from levels[0] to levels[-1].

    Args:
        x: a sample at levels[0].
        levels: alpha and sigma as floats, noise falling, alpha > 0.
        noise: called with the step by the samplers that add noise, and by no other.
        on_step: called after each step with (step, x, the x0 it was based on).
    """
    return SAMPLERS[sampler](lambda x, level: denoise(x, level, condition), x, levels, noise, on_step)
