"""Samplers that add noise: their moments, their order, and what each noise is used for."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.diffusion.grids import level_grid
from darkroom.diffusion.process import Process
from darkroom.diffusion.schedule import CLEAN, Level
from tests.support.diffusion import make_ve, make_vp, sample

VARIANCE_ORDER = {"ddpm": 1, "euler_ancestral": 1, "dpmpp_2m_sde": 2, "euler_maruyama": 1}
SCHEDULE = make_vp("linear", 0.0001, 0.02, 1000)


def test_a_ddpm_step_draws_from_the_posterior() -> None:
    """Of a known x0: the marginal keeps its variance and the chain its covariance (Ho et al. 2020, eq. 4 and 6-7)."""
    levels = [SCHEDULE.level(t) for t in (900, 400)]
    now, after = levels
    mean = 0.4

    def step(x: float, noise: float) -> float:
        values = sample(
            "ddpm",
            lambda x, level: torch.full_like(x, mean),
            torch.full((1, 1, 1, 1), x, dtype=torch.float64),
            levels,
            lambda i: torch.full((1, 1, 1, 1), noise, dtype=torch.float64),
        )
        return float(values)

    centre = step(now.alpha * mean, 0.0)
    carried, added = step(now.alpha * mean + 1, 0.0) - centre, step(now.alpha * mean, 1.0) - centre
    assert centre == pytest.approx(after.alpha * mean)
    assert carried**2 * now.sigma**2 + added**2 == pytest.approx(after.sigma**2)
    assert carried * now.sigma**2 == pytest.approx(now.alpha / after.alpha * after.sigma**2)


def no_noise(number: int) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def spread(name: str, world: Any, levels: list[Level], **own: Any) -> float:
    """The standard deviation a sampler ends with in a world of mean 0, where it is linear in the noises it is given."""
    return float(responses(name, world, levels, **own).norm())


def responses(name: str, world: Any, levels: list[Level], **own: Any) -> Tensor:
    """(N + 1,): what the end of a walk of N steps is made of: of the start's unit noise, and of that of each step."""
    n = len(levels)
    rows = torch.eye(n, dtype=torch.float64).view(n, n, 1, 1)
    x = rows[:1] * world.variance(levels[0]) ** 0.5
    return sample(name, world.denoise, x, levels, lambda i: rows[i + 1 : i + 2], **own).flatten()


@pytest.mark.parametrize("name", VARIANCE_ORDER)
def test_the_spread_of_noisy_walks_converges_with_the_order_of_the_method(
    name: str, process: Process, gaussian: Any, even_levels: Any
) -> None:
    world, errors = gaussian(0.0, 0.6), []
    for n in (32, 64, 128):
        levels = even_levels(n, process)
        errors.append(abs(spread(name, world, levels) / world.variance(levels[-1]) ** 0.5 - 1))
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([VARIANCE_ORDER[name]] * 2, abs=0.15), errors
    assert errors[-1] < (3e-2 if VARIANCE_ORDER[name] == 1 else 1e-3)


def test_the_mean_of_euler_and_maruyama_is_exact(process: Process, gaussian: Any, even_levels: Any) -> None:
    """In X = x / alpha over S = (sigma / alpha)^2 the reverse SDE of a Gaussian world is dX / dS = X / (std^2 + S)."""
    world, levels = gaussian(0.0, 0.6), even_levels(8, process)
    before, after = (world.variance(level) / level.alpha**2 for level in (levels[0], levels[-1]))
    expected = world.variance(levels[0]) ** 0.5 / levels[0].alpha * (after / before) * levels[-1].alpha
    assert float(responses("euler_maruyama", world, levels)[0]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("name", "off"), [("euler_maruyama", 0.03), ("predictor_corrector", 0.06)])
def test_noisy_walks_end_with_the_spread_of_the_pictures(
    name: str, off: float, process: Process, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    world = gaussian(0.4, 0.3)
    levels = level_grid(process, 400, "trailing")
    x = process.spread * draw(1, 1, 64, 64)
    found = sample(name, world.denoise, x, levels, lambda i: draw(1, 1, 64, 64, seed=i + 1))
    assert float(found.mean()) == pytest.approx(0.4, abs=0.03)
    assert float(found.std()) == pytest.approx(0.3, rel=off)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_each_published_variance_is_exact_for_its_own_world(steps: int, gaussian: Any) -> None:
    """beta-tilde for a single picture, beta for pictures of unit variance (Ho et al. 2020, section 3.2)."""
    levels = [SCHEDULE.level(900 - 800 * i / steps) for i in range(steps + 1)]
    one, unit = gaussian(0.0, 0.0), gaussian(0.0, 1.0)
    assert spread("ddpm", one, levels, variance="beta_tilde") == pytest.approx(levels[-1].sigma)
    assert spread("ddpm", unit, levels, variance="beta") == pytest.approx(1)
    assert spread("ddpm", one, levels, variance="beta") > 1.001 * levels[-1].sigma
    assert spread("ddpm", unit, levels, variance="beta_tilde") < 0.999


@pytest.mark.parametrize("variance", ["beta_tilde", "beta"])
def test_ddpm_gives_pictures_of_the_right_spread(variance: Any, gaussian: Any) -> None:
    levels = level_grid(SCHEDULE, 1000, "leading")
    assert spread("ddpm", gaussian(0.0, 0.3), levels, variance=variance) == pytest.approx(0.3, rel=0.02)


def test_ancestral_sampling_is_ddim_with_full_noise_and_the_first_order_of_the_sde_solver(
    gaussian: Any, draw: Callable[..., Tensor], even_levels: Any
) -> None:
    world, x, levels = gaussian(0.4, 0.3), draw(1, 1, 4, 4), even_levels(5, SCHEDULE)

    def end(name: str, levels: list[Level], **own: Any) -> Tensor:
        noise = [draw(1, 1, 4, 4, seed=1 + step) for step in range(5)]
        return sample(name, world.denoise, x, levels, noise.__getitem__, **own)

    expected = end("ddpm", levels)
    assert torch.equal(end("euler_ancestral", levels), expected)
    assert torch.equal(end("ddim", levels, eta=1.0), expected)
    assert not torch.allclose(end("ddim", levels, eta=0.5), expected, atol=0.05)
    flow = sample("ddim", world.denoise, x, levels, no_noise, eta=0.0)
    assert not torch.allclose(flow, expected, atol=0.05)
    torch.testing.assert_close(end("dpmpp_2m_sde", levels[:2]), end("ddpm", levels[:2]))


def test_eta_goes_from_the_flow_to_ddpm(gaussian: Any, even_levels: Any) -> None:
    """Of a single picture, every eta keeps the marginals (Song et al. 2021, lemma 1)."""
    levels = even_levels(5, SCHEDULE)
    for eta in (0.0, 0.3, 1.0):
        assert spread("ddim", gaussian(0.0, 0.0), levels, eta=eta) == pytest.approx(levels[-1].sigma)


def test_each_noise_of_the_corrector_and_the_predictor_is_drawn_once(draw: Callable[..., Tensor]) -> None:
    drawn = []

    def noise(number: int) -> Tensor:
        drawn.append(number)
        return draw(1, 1, 4, 4, seed=number)

    levels = level_grid(SCHEDULE, 4)
    sample(
        "predictor_corrector",
        lambda x, level: 0.9 * x,
        draw(1, 1, 4, 4),
        levels,
        noise,
    )
    assert drawn == [0, 1, 2, 3, 4, 5, 6]  # the last step ends at the clean picture, which needs none


def test_a_correction_has_the_published_size_and_an_end(draw: Callable[..., Tensor]) -> None:
    """Song et al. 2021, algorithm 4: 2 (snr sqrt(D) / |g|)^2 along the score g = -eps / sigma, and its noise."""
    level, z, snr = make_ve(25.0, 1e-3).level(700), draw(1, 1, 4, 4, seed=1), 0.16
    for factor in (1.0, 1e-9):  # as much of a score as noise has, and next to none
        x, g = draw(1, 1, 4, 4), -factor * draw(1, 1, 4, 4, seed=2) / level.sigma
        seen = []

        def denoise(x: Tensor, at: Level, g: Tensor = g, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x)
            return x + at.sigma**2 * g

        sample("predictor_corrector", denoise, x, [level, CLEAN], lambda i: z, snr=snr)
        step = min(2 * (snr * 16**0.5 / float(g.norm())) ** 2, float(level.sigma) ** 2)
        torch.testing.assert_close(seen[1], x + step * g + (2 * step) ** 0.5 * z)
