"""The numbers of docs/diffusion-in-one-dimension.md."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from darkroom.diffusion.schedule import Level

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def one(load: Callable[[Path], ModuleType]) -> Any:
    return load(ROOT / "docs" / "diffusion_in_one_dimension.py")


def test_brownian_motion_ends_with_the_variance_of_its_time(one: Any) -> None:
    for published, variance in ((False, 10.0), (True, 100.0)):
        paths = one.forward(20_000, published)
        assert paths.shape == (101, 20_000)
        assert float(paths[-1].var()) == pytest.approx(variance, rel=0.05)
        assert float(paths[50].var()) == pytest.approx(variance / 2, rel=0.05)


def test_the_motion_reversed_comes_back_to_where_it_began(one: Any) -> None:
    times, paths = one.reverse(20_000)
    assert (times[0], times[-1]) == pytest.approx((10, 0), abs=1e-9)
    for i in (0, 50, 90):
        assert float(paths[i].var()) == pytest.approx(times[i], rel=0.1)
    assert not paths[-1].any()


def test_as_published_the_motion_comes_back_from_elsewhere_and_only_half(one: Any) -> None:
    """From variance V at time T, the exact variance at t is V (t / T)^2 + t (1 - t / T)."""
    times, paths = one.reverse(20_000, published=True)
    assert float(paths[0].var()) == pytest.approx(100, rel=0.05)
    assert times[-1] == pytest.approx(1)
    assert float(paths[-1].var()) == pytest.approx(100 / 100 + 0.9, rel=0.1)


def test_the_published_last_step_goes_twice_or_four_times_as_far_as_the_mean(one: Any) -> None:
    (few, *of_few), (many, *of_many) = one.last_steps()
    assert (few, many) == (250, 500)
    for (factor, theirs, ours), expected, left in ((of_few, 4.0, 0.2), (of_many, 2.0, 0.05)):
        assert factor == pytest.approx(expected, rel=0.01)
        assert theirs == pytest.approx(left, rel=0.1)
        assert ours < 1e-6


def test_the_mixtures_denoiser_and_quantiles_are_exact(one: Any) -> None:
    """E[x0 | x] = x + sigma^2 d/dx log p (Tweedie), with p the derivative of the distribution the quantiles invert."""
    level, n = Level(1.0, 0.4), 2**12
    x = one.MIXTURE.quantiles(n, level).flatten()
    std = (one.MIXTURE.stds**2 + 0.4**2) ** 0.5
    below = torch.special.ndtr((x[:, None] - one.MIXTURE.means) / std) @ one.MIXTURE.weights
    torch.testing.assert_close(below, (torch.arange(n, dtype=torch.float64) + 0.5) / n, rtol=0, atol=1e-12)
    x = x[:: n // 16].clone().requires_grad_()
    density = torch.exp(-(((x[:, None] - one.MIXTURE.means) / std) ** 2) / 2) / std @ one.MIXTURE.weights
    (score,) = torch.autograd.grad(density.log().sum(), x)
    torch.testing.assert_close(one.MIXTURE.denoise(x.detach(), level), x.detach() + 0.4**2 * score)


def orders(one: Any, name: Any, steps: tuple[int, ...], population: int) -> tuple[list[float], float]:
    errors = [one.measure(name, one.levels_to_sigma_min(n), population).error for n in steps]
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)], errors[-1]


@pytest.mark.parametrize(("name", "error"), [("ddim", 6e-3), ("heun", 3e-4), ("dpmpp_2m", 8e-4), ("pndm", 3e-4)])
def test_samplers_without_noise_have_their_order(one: Any, name: Any, error: float) -> None:
    found, last = orders(one, name, (64, 128), 2**9)
    assert found == pytest.approx([one.ORDERS[name]], abs=0.3)
    assert last < error


@pytest.mark.parametrize(("name", "error"), [("euler_maruyama", 2.5e-2), ("ddpm", 2.1e-2)])
def test_samplers_with_noise_have_their_weak_order(one: Any, name: Any, error: float) -> None:
    found, last = orders(one, name, (16, 32, 64), 2**13)
    assert found == pytest.approx([one.NOISY_ORDERS[name]] * 2, abs=0.15)
    assert last < error


def test_the_multistep_solver_of_the_sde_has_weak_order_2(one: Any) -> None:
    found, last = orders(one, "dpmpp_2m_sde", (32, 64), 2**13)
    assert found == pytest.approx([one.NOISY_ORDERS["dpmpp_2m_sde"]], abs=0.2)
    assert last < 1e-2


def test_the_predictor_corrector_comes_near(one: Any) -> None:
    found = one.measure("predictor_corrector", one.levels_to_sigma_min(64), 2**12)
    assert found.evaluations == 128
    assert found.error < 2.5e-2


def test_the_ode_is_exact_to_1e_4_in_fewer_evaluations_than_any_other(one: Any) -> None:
    whole = one.levels_to_sigma_min(2)
    found = one.measure("ode", whole, 2**10, tolerance=1e-5)
    assert found.error < 1e-4 / 5
    assert found.evaluations < 80


def test_the_published_method_errs_more_than_the_same_method_with_its_steps_counted(one: Any) -> None:
    last = one.levels_to_sigma_min(2)[-1]
    for n in (16, 64):
        theirs = one.distance(one.published(n, one.PROCESS.timestep(last) / 1000, 2**12), last)
        ours = one.measure("euler_maruyama", one.levels_to_sigma_min(n), 2**12)
        assert ours.evaluations == n
        assert theirs > 1.5 * ours.error


def test_the_page_shows_these_numbers(one: Any) -> None:
    page = (ROOT / "docs" / "diffusion-in-one-dimension.md").read_text(encoding="utf-8")
    for n in (16, 64):
        assert f"{one.measure('ddim', one.levels_to_sigma_min(n), 2**12).error:.1e}".replace("e-0", "e-") in page
    for name in ("one-dimension-paths.png", "one-dimension-errors.png"):
        assert f"({name})" in page
        assert (ROOT / "docs" / name).stat().st_size < 60_000
