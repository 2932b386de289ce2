"""Samplers: update rules that walk a grid of levels and know nothing of networks, schedules or prompts.

Each takes x at levels[0], where alpha may be 0, to levels[-1]. With eps = (x - alpha * x0) / sigma, the first-order
rule x <- alpha' * x0 + sigma' * eps is DDIM (Song et al. 2021a, "Denoising diffusion implicit models", eq. 12 with
eta = 0) and, read in the coordinates x / alpha and s = sigma / alpha, Euler's method on dx/ds = eps: one rule under two
names. Song et al. 2021b is "Score-based generative modeling through stochastic differential equations".
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from darkroom.config.choices import SNR, TOLERANCE, SamplerName, Variance
from darkroom.diffusion.denoiser import Condition, Denoise
from darkroom.diffusion.ode import probability_flow
from darkroom.diffusion.schedule import Level

AtLevel = Callable[[Tensor, Level], Tensor]  # (x, level) -> x0, the condition already given
Noise = Callable[[int], Tensor]  # 0, 1, 2, … -> Gaussian noise shaped like x, another for each number
OnStep = Callable[[int, Tensor, Tensor], None]  # (step, x after the step, x0 of the step)

PURE_NOISE = 1000.0  # sigma / alpha; linear schedules begin at 15 to 160, a cosine schedule at 20,000


def _eps(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    return (x - level.alpha * x0) / level.sigma


def _first_order(
    d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep, eta: float = 0.0, wide: bool = False
) -> Tensor:
    """DDIM (Song et al. 2021a, eq. 12 and 16) between any two levels.

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
        if now.alpha == 0:
            x = after.alpha * x0 + after.sigma * slope
            on(i, x, x0)
            continue
        if after.sigma > 0 and now.sigma < PURE_NOISE * now.alpha:
            guess = after.alpha * x0 + after.sigma * slope
            slope = (slope + _eps(guess, d(guess, after), after)) / 2
        change = after.sigma / after.alpha - now.sigma / now.alpha
        x = after.alpha * (x / now.alpha + change * slope)
        on(i, x, x0)
    return x


def _dpmpp_2m(d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep, eta: float = 0.0) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): multistep in log(alpha / sigma), first order at both ends.

    A first step out of alpha 0 has no length there, so the second is of first order too.

    eta = 1 is the solver of the reverse SDE (appendix A of the paper, "SDE-DPM-Solver++(2M)") instead of the flow's.
    """
    before: Tensor | None = None
    h_before = 0.0
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = d(x, now)
        if after.sigma == 0:
            x = after.alpha * x0
        else:
            h = math.log(after.alpha / after.sigma) - _half_log_snr(now)
            r = h_before / h
            ahead = x0 if before is None else x0 + (x0 - before) / (2 * r)
            kept = (after.sigma / now.sigma) * (math.exp(-eta * h) if eta > 0 else 1.0)
            x = kept * x - after.alpha * math.expm1(-(1 + eta) * h) * ahead
            if eta > 0:
                x = x + after.sigma * math.sqrt(-math.expm1(-2 * eta * h)) * noise(i)
            before, h_before = x0, h
        on(i, x, x0)
    return x


def _half_log_snr(level: Level) -> float:
    return math.log(level.alpha / level.sigma) if level.alpha > 0 else -math.inf


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


def _euler_maruyama(d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep) -> Tensor:
    """Euler and Maruyama's method on the reverse SDE; see `_diffuse_back`."""
    for i, (now, after) in enumerate(pairwise(levels)):
        x0 = d(x, now)
        x = _diffuse_back(x, x0, now, after, lambda: noise(i))  # noqa: B023 (called at once)
        on(i, x, x0)
    return x


def _predictor_corrector(
    d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep, snr: float
) -> Tensor:
    """Song et al. 2021b, algorithms 2 and 4: at each level a step of Langevin dynamics, then `_diffuse_back`.

    The step's size is 2 (snr |z| / |g|)^2, with the score g and the norm sqrt(D) of unit noise z, for each sample by
    itself, so that none depends on its batch. It is at most sigma^2: beyond, where a sample of few elements meets a
    score near 0, Langevin dynamics overshoots.
    """
    for i, (now, after) in enumerate(pairwise(levels)):
        eps = _eps(x, d(x, now), now)
        size = eps.square().mean(dim=tuple(range(1, x.ndim)), keepdim=True)
        step = (2 * snr**2 / size).clamp(max=1)  # in units of sigma^2
        x = x - now.sigma * (step * eps - (2 * step).sqrt() * noise(2 * i))
        x0 = d(x, now)
        x = _diffuse_back(x, x0, now, after, lambda: noise(2 * i + 1))  # noqa: B023 (called at once)
        on(i, x, x0)
    return x


def _diffuse_back(x: Tensor, x0: Tensor, now: Level, after: Level, noise: Callable[[], Tensor]) -> Tensor:
    """A step of Euler and Maruyama's method in X = x / alpha over the variance S = (sigma / alpha)^2: with the score
    (X0 - X) / S, X' = X + (S - S') score + sqrt(S - S') z (Song et al. 2021b, eq. 6).

    Into sigma 0 it is the mean alone, which is E[x0 | x]. Out of (almost) pure noise, where S - S' is that of a picture
    many times over, it draws from q(x' | x, x0), as all samplers do there.
    """
    if after.sigma == 0:
        return after.alpha * x0
    if now.sigma >= PURE_NOISE * now.alpha:
        return after.alpha * x0 + after.sigma * noise()
    s, s_after = now.sigma / now.alpha, after.sigma / after.alpha
    moved = x / now.alpha - (s**2 - s_after**2) / s * _eps(x, x0, now)
    return after.alpha * (moved + math.sqrt(s**2 - s_after**2) * noise())


def _ode(d: AtLevel, x: Tensor, levels: Sequence[Level], noise: Noise, on: OnStep, **own: Any) -> Tensor:
    return probability_flow(d, x, levels, on, **own)


SAMPLERS: dict[SamplerName, Callable[..., Tensor]] = {
    "ddpm": partial(_first_order, eta=1.0),
    "ddim": _first_order,
    "euler": _first_order,
    "euler_ancestral": partial(_first_order, eta=1.0),
    "heun": _heun,
    "dpmpp_2m": _dpmpp_2m,
    "dpmpp_2m_sde": partial(_dpmpp_2m, eta=1.0),
    "pndm": _plms,
    "euler_maruyama": _euler_maruyama,
    "predictor_corrector": _predictor_corrector,
    "ode": _ode,
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
    snr: float = SNR,
    tolerance: float = TOLERANCE,
    at_ratio: Callable[[float], Level] | None = None,
) -> Tensor:
    """Walk x (N, C, H, W) from levels[0] to levels[-1].

    Args:
        x: a sample at levels[0].
        levels: alpha and sigma as floats, noise falling; alpha > 0 but, for all samplers except pndm, the first.
        noise: called by the samplers that add noise, and by no other.
        on_step: called after each step with (step, x, the x0 it was based on).
        eta: of ddim, 0 (no noise is added) to 1 (as much as by ddpm). variance: of ddpm. snr: of predictor_corrector.
        tolerance, at_ratio: of ode, which needs the latter; see `probability_flow`.
    """
    own: dict[str, dict[str, Any]] = {
        "ddim": {"eta": eta},
        "ddpm": {"wide": variance == "beta"},
        "predictor_corrector": {"snr": snr},
        "ode": {"tolerance": tolerance, "at_ratio": at_ratio},
    }
    return SAMPLERS[sampler](
        lambda x, level: denoise(x, level, condition), x, levels, noise, on_step, **own.get(sampler, {})
    )
