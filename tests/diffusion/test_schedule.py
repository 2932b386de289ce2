"""The discrete noise schedules: diffusers' numbers, and times and levels as two names of one thing."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from darkroom.diffusion.schedule import CLEAN, DiscreteVP, Level
from tests.support.diffusion import make_vp

SCHEDULES = ("linear", "scaled_linear", "cosine", "sigmoid")
BETAS = dict.fromkeys(SCHEDULES, (0.0001, 0.02)) | {"scaled_linear": (0.00085, 0.012)}
DIFFUSERS_NAMES = {name: name for name in SCHEDULES} | {"cosine": "squaredcos_cap_v2"}


# sqrt(alpha_bar) of a published model with 300 times and betas from 1e-4 to 0.02, at times 0, 30, ..., 270.
OF_300_TIMES = [0.9999, 0.9831, 0.9380, 0.8684, 0.7801, 0.6800, 0.5750, 0.4717, 0.3754, 0.2898]


def make(name: str, n: int = 1000, **options: bool) -> DiscreteVP:
    return make_vp(name, *BETAS[name], n, **options)


@pytest.mark.parametrize("name", SCHEDULES)
def test_alphas_are_those_of_diffusers(name: str, diffusers: Any) -> None:
    start, end = BETAS[name]
    scheduler = diffusers.DDPMScheduler(beta_start=start, beta_end=end, beta_schedule=DIFFUSERS_NAMES[name])
    torch.testing.assert_close(make(name).alphas_cumprod.float(), scheduler.alphas_cumprod, rtol=2e-4, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_preserve_variance_and_grow_noisier(name: str) -> None:
    levels = [make(name).level(t) for t in range(1000)]
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1, abs=1e-12) for level in levels)
    assert all(a.sigma < b.sigma for a, b in pairwise(levels))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("t", [0.0, 0.25, 1.0, 17.5, 500.0, 998.0, 998.9, 999.0])
def test_time_and_level_are_each_others_inverse(name: str, t: float) -> None:
    schedule = make(name)
    assert schedule.timestep(schedule.level(t)) == pytest.approx(t, abs=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_levels_of_training_are_those_of_sampling(name: str) -> None:
    schedule, times = make(name), torch.tensor([0, 3, 500, 999])
    trained = schedule.levels(times)
    assert trained.alpha.shape == trained.sigma.shape == (4, 1, 1, 1)
    for i, t in enumerate(times.tolist()):
        assert float(trained.alpha[i]) == pytest.approx(schedule.level(t).alpha, rel=1e-6)
        assert float(trained.sigma[i]) == pytest.approx(schedule.level(t).sigma, rel=1e-6)


def test_between_two_times_the_log_of_the_snr_is_halfway() -> None:
    schedule = make("linear")

    def log_snr(t: float) -> float:
        level = schedule.level(t)
        return float(torch.tensor(level.alpha / level.sigma, dtype=torch.float64).log())

    assert log_snr(10.5) == pytest.approx((log_snr(10) + log_snr(11)) / 2, abs=1e-9)


def test_levels_beyond_the_schedule_have_its_outermost_times() -> None:
    schedule = make("linear")
    assert schedule.timestep(CLEAN) == 0
    assert schedule.timestep(Level(0.0, 1.0)) == 999
    assert schedule.timestep(Level(0.9999999, 1e-4)) == 0
    assert schedule.timestep(Level(1e-9, 1.0)) == 999


def test_a_published_schedule_of_300_times() -> None:
    schedule = make("linear", 300)
    assert [float(schedule.level(t).alpha) for t in range(0, 300, 30)] == pytest.approx(OF_300_TIMES, abs=5e-5)
    assert schedule.level(299).alpha == pytest.approx(0.219, abs=1e-3)  # far from noise alone


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "cosine"])
@pytest.mark.parametrize("n", [100, 300, 1000])
def test_scaled_betas_end_in_as_much_noise_as_1000_times_do(name: str, n: int) -> None:
    scaled, full = make(name, n, scale_betas=True), make(name)
    assert torch.equal(make(name, 1000, scale_betas=True).alphas_cumprod, full.alphas_cumprod)
    few, many = (math.log(float(schedule.level(schedule.latest).alpha)) for schedule in (scaled, full))
    assert few == pytest.approx(many, rel=10 / n)


def test_betas_that_cannot_be_scaled_are_refused() -> None:
    """Fails if a beta of 1 and more is accepted."""
    with pytest.raises(ValidationError, match=r"schedule\.beta_end = 0\.02 becomes 1 by scale_betas with"):
        make("linear", 20, scale_betas=True)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_without_terminal_signal_is_that_of_diffusers(name: str, diffusers: Any) -> None:
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    start, end = BETAS[name]
    theirs = diffusers.DDPMScheduler(beta_start=start, beta_end=end, beta_schedule=DIFFUSERS_NAMES[name])
    expected = (1 - rescale_zero_terminal_snr(theirs.betas)).cumprod(0)
    found = make(name, rescale_betas_zero_snr=True).alphas_cumprod
    assert found[-1] == 0
    assert float(found[0]) == pytest.approx(float(make(name).alphas_cumprod[0]), rel=1e-12)
    torch.testing.assert_close(found.float(), expected, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_terminal_signal_time_and_level_are_still_each_others_inverse(name: str) -> None:
    schedule = make(name, rescale_betas_zero_snr=True)
    assert schedule.level(999) == Level(0.0, 1.0)
    assert schedule.timestep(Level(0.0, 1.0)) == 999
    times = [0.0, 17.5, 500.0, 997.25, 998.0, 998.5, 998.999]
    levels = [schedule.level(t) for t in times]
    assert [schedule.timestep(level) for level in levels] == pytest.approx(times, abs=1e-6)
    assert all(a.alpha > b.alpha > 0 for a, b in pairwise(levels))
    assert schedule.level(998.999999).alpha == pytest.approx(0, abs=1e-6)  # no leap into the last time
    last = schedule.levels(torch.tensor([999]))
    assert (float(last.alpha), float(last.sigma)) == (0, 1)
