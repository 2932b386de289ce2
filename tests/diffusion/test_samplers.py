"""Samplers against denoisers whose answer is known: exact where they must be, and of their order elsewhere."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from darkroom.core.choices import SamplerName, Spacing
from darkroom.diffusion.denoiser import Condition, Denoise, Denoiser
from darkroom.diffusion.generate import Sampling, generate
from darkroom.diffusion.grids import level_grid
from darkroom.diffusion.prediction import target
from darkroom.diffusion.samplers import ADAMS_BASHFORTH, ignore_step, sample
from darkroom.diffusion.schedule import CLEAN, DiscreteVP, Level

SAMPLERS = get_args(SamplerName)
STOCHASTIC = {"ddpm", "euler_ancestral", "dpmpp_2m_sde"}
DETERMINISTIC = [name for name in SAMPLERS if name not in STOCHASTIC]
ORDER = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2, "pndm": 2}
VARIANCE_ORDER = {"ddpm": 1, "euler_ancestral": 1, "dpmpp_2m_sde": 2}
CALLS = {name: {"heun": 2 * 6 - 1, "pndm": 6 + 1}.get(name, 6) for name in SAMPLERS}
SCHEDULE = DiscreteVP("linear", 0.0001, 0.02, 1000)


def no_noise(step: int) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def walk(name: SamplerName, denoise: Denoise, x: Tensor, levels: list[Level]) -> Tensor:
    return sample(name, denoise, x, levels, Condition(), no_noise, ignore_step)


def even_levels(n: int, first: float = -2.0, last: float = 2.0) -> list[Level]:
    """n steps evenly spaced in log(alpha / sigma), between two noisy levels."""
    log_snrs = [2 * (first + (last - first) * i / n) for i in range(n + 1)]
    return [Level((1 / (1 + math.exp(-s))) ** 0.5, (1 / (1 + math.exp(s))) ** 0.5) for s in log_snrs]


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_error_falls_with_the_order_of_the_method(
    name: SamplerName, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    world, x = gaussian(0.4, 1.0), draw(1, 1, 4, 4)
    errors = []
    for n in (32, 64, 128):
        levels = even_levels(n)
        exact = world.flow(x, levels[0], levels[-1])
        errors.append(float((walk(name, world.denoise, x, levels) - exact).norm() / exact.norm()))
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([ORDER[name]] * 2, abs=0.1), errors
    assert errors[-1] < (2e-2 if ORDER[name] == 1 else 1e-3)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_a_whole_walk_ends_where_the_flow_ends(
    name: SamplerName, spacing: Spacing, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    world, x = gaussian(0.4, 0.3), draw(1, 1, 4, 4)
    levels = level_grid(SCHEDULE, 200, spacing)
    exact = world.flow(x, levels[0], CLEAN)
    found = walk(name, world.denoise, x, levels)
    assert float((found - exact).norm() / exact.norm()) < 0.03


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_a_single_picture_is_found_in_any_number_of_steps(
    name: SamplerName, steps: int, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    world, x = gaussian(0.4, 0.0), draw(2, 1, 4, 4)
    levels = level_grid(SCHEDULE, steps, "trailing")
    found = sample(name, world.denoise, x, levels, Condition(), lambda step: draw(2, 1, 4, 4, seed=step), ignore_step)
    torch.testing.assert_close(found, torch.full_like(x, 0.4), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp_2m"])
def test_a_walk_out_of_pure_noise_stays_where_the_pictures_are(
    name: SamplerName, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    """A cosine schedule begins at sigma / alpha = 20,000; a network is imprecise there."""
    world = gaussian(0.4, 0.3)

    def denoise(x: Tensor, level: Level, condition: Condition) -> Tensor:
        return world.denoise(x, level, condition) + (0.1 if level.alpha < 1e-3 else 0.0)

    levels = level_grid(DiscreteVP("cosine", 0.0001, 0.02, 1000), 20, "trailing")
    found = walk(name, denoise, draw(8, 1, 4, 4), levels)
    assert float(found.mean()) == pytest.approx(0.4, abs=0.15)
    assert 0.15 < float(found.std()) < 0.6


def test_ddim_and_eulers_method_are_one_rule(gaussian: Any, draw: Callable[..., Tensor]) -> None:
    """Euler's method on d(x / alpha) / d(sigma / alpha) = eps (Song et al. 2021, section 4.3)."""
    world, x, levels = gaussian(0.4, 0.3), draw(1, 1, 4, 4), even_levels(5)
    scaled, s = x / levels[0].alpha, levels[0].sigma / levels[0].alpha
    for now, after in pairwise(levels):
        here = scaled * now.alpha
        eps = (here - now.alpha * world.denoise(here, now, Condition())) / now.sigma
        scaled, s = scaled + (after.sigma / after.alpha - s) * eps, after.sigma / after.alpha
    for name in ("ddim", "euler"):
        torch.testing.assert_close(walk(name, world.denoise, x, levels), scaled * levels[-1].alpha)


def test_a_ddpm_step_draws_from_the_posterior() -> None:
    """Of a known x0: the marginal keeps its variance and the chain its covariance (Ho et al. 2020, eq. 4 and 6-7)."""
    levels = [SCHEDULE.level(t) for t in (900, 400)]
    now, after = levels
    mean = 0.4

    def step(x: float, noise: float) -> float:
        values = sample(
            "ddpm",
            lambda x, level, condition: torch.full_like(x, mean),
            torch.full((1, 1, 1, 1), x, dtype=torch.float64),
            levels,
            Condition(),
            lambda i: torch.full((1, 1, 1, 1), noise, dtype=torch.float64),
            ignore_step,
        )
        return float(values)

    centre = step(now.alpha * mean, 0.0)
    carried, added = step(now.alpha * mean + 1, 0.0) - centre, step(now.alpha * mean, 1.0) - centre
    assert centre == pytest.approx(after.alpha * mean)
    assert carried**2 * now.sigma**2 + added**2 == pytest.approx(after.sigma**2)
    assert carried * now.sigma**2 == pytest.approx(now.alpha / after.alpha * after.sigma**2)


def spread(name: SamplerName, world: Any, levels: list[Level], **own: Any) -> float:
    """The standard deviation a sampler ends with in a world of mean 0, where it is linear in the noises it is given.

    The first row of x is the start and row i + 2 the noise of step i, each alone: the walk's response to each.
    """
    n = len(levels)
    rows = torch.eye(n, dtype=torch.float64).view(n, n, 1, 1)
    x = rows[:1] * world.variance(levels[0]) ** 0.5
    end = sample(name, world.denoise, x, levels, Condition(), lambda i: rows[i + 1 : i + 2], ignore_step, **own)
    return float(end.norm())


@pytest.mark.parametrize("name", sorted(STOCHASTIC))
def test_the_spread_of_noisy_walks_converges_with_the_order_of_the_method(name: SamplerName, gaussian: Any) -> None:
    world, errors = gaussian(0.0, 0.6), []
    for n in (32, 64, 128):
        levels = even_levels(n)
        errors.append(abs(spread(name, world, levels) / world.variance(levels[-1]) ** 0.5 - 1))
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([VARIANCE_ORDER[name]] * 2, abs=0.15), errors
    assert errors[-1] < (3e-2 if VARIANCE_ORDER[name] == 1 else 1e-3)


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
    gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    world, x, levels = gaussian(0.4, 0.3), draw(1, 1, 4, 4), even_levels(5)

    def end(name: SamplerName, levels: list[Level], **own: Any) -> Tensor:
        noise = [draw(1, 1, 4, 4, seed=1 + step) for step in range(5)]
        return sample(name, world.denoise, x, levels, Condition(), noise.__getitem__, ignore_step, **own)

    expected = end("ddpm", levels)
    assert torch.equal(end("euler_ancestral", levels), expected)
    assert torch.equal(end("ddim", levels, eta=1.0), expected)
    assert not torch.allclose(end("ddim", levels, eta=0.5), expected, atol=0.05)
    assert torch.equal(end("ddim", levels, eta=0.0), walk("ddim", world.denoise, x, levels))
    torch.testing.assert_close(end("dpmpp_2m_sde", levels[:2]), end("ddpm", levels[:2]))


def test_eta_goes_from_the_flow_to_ddpm(gaussian: Any) -> None:
    """Of a single picture, every eta keeps the marginals (Song et al. 2021, lemma 1)."""
    levels = even_levels(5)
    for eta in (0.0, 0.3, 1.0):
        assert spread("ddim", gaussian(0.0, 0.0), levels, eta=eta) == pytest.approx(levels[-1].sigma)


def test_multistep_weights_are_exact_on_polynomials() -> None:
    """Adams and Bashforth: k weights integrate polynomials of degree k - 1 over the step ahead."""
    for weights in ADAMS_BASHFORTH:
        for degree in range(len(weights)):
            area = sum(w * (-k) ** degree for k, w in enumerate(weights))
            assert area == pytest.approx(1 / (degree + 1))


@pytest.mark.parametrize(("name", "calls"), CALLS.items())
def test_every_step_is_shown_and_the_network_asked_no_more_than_needed(
    name: SamplerName, calls: int, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    world, seen, asked = gaussian(0.4, 0.3), [], []

    def denoise(x: Tensor, level: Level, condition: Condition) -> Tensor:
        asked.append(level)
        return world.denoise(x, level, condition)

    levels = level_grid(SCHEDULE, 6, "trailing")
    found = sample(
        name,
        denoise,
        draw(1, 1, 2, 2),
        levels,
        Condition(),
        lambda step: draw(1, 1, 2, 2, seed=step),
        lambda step, x, x0: seen.append((step, x)),
    )
    assert len(asked) == calls
    assert [step for step, _ in seen] == list(range(6))
    assert torch.equal(seen[-1][1], found)


def test_noise_and_condition_reach_the_samplers_unchanged(draw: Callable[..., Tensor]) -> None:
    given, steps = Condition(class_ids=torch.tensor([5])), []

    def denoise(x: Tensor, level: Level, condition: Condition) -> Tensor:
        assert condition is given
        return torch.zeros_like(x)

    def noise(step: int) -> Tensor:
        steps.append(step)
        return torch.zeros(1, 1, 2, 2)

    sample("ddpm", denoise, draw(1, 1, 2, 2), level_grid(SCHEDULE, 4), given, noise, ignore_step)
    assert steps == [0, 1, 2]  # the last step ends at the clean picture, which needs none


@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "dpmpp_2m"])
def test_generating_walks_the_grid_with_guidance(name: SamplerName, gaussian: Any, draw: Callable[..., Tensor]) -> None:
    world, wanted, null = gaussian(0.0, 0.5), Condition(class_ids=torch.ones(2)), Condition(class_ids=torch.zeros(2))

    def network(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """v of a world whose mean is the class."""
        level = SCHEDULE.level(float(t[0]))
        mean = condition.class_ids.view(-1, 1, 1, 1).double()
        x0 = mean + world.denoise(x - level.alpha * mean, level, condition)
        return target("v_prediction", x0, (x - level.alpha * x0) / level.sigma, level)

    denoiser, start = Denoiser(network, SCHEDULE, "v_prediction"), draw(2, 1, 4, 4)
    levels = level_grid(SCHEDULE, 20, "linspace")
    for scale in (1.0, 3.0):
        found = generate(denoiser, Sampling(name, 20, scale, "linspace"), start, wanted, null, no_noise)

        def by_hand(x: Tensor, level: Level, condition: Condition, scale: float = scale) -> Tensor:
            without, with_condition = denoiser(x, level, null), denoiser(x, level, wanted)
            return without + scale * (with_condition - without)

        torch.testing.assert_close(found, walk(name, by_hand, start, levels), rtol=1e-4, atol=1e-4)
