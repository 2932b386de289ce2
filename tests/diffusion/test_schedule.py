"""The noise schedules: diffusers' numbers, and times and levels as two names of one thing."""

from itertools import pairwise
from typing import Any, get_args

import pytest
import torch

from darkroom.core.choices import ScheduleName
from darkroom.diffusion.schedule import CLEAN, DiscreteVP, Level

SCHEDULES = get_args(ScheduleName)
BETAS = {"linear": (0.0001, 0.02), "scaled_linear": (0.00085, 0.012), "cosine": (0.0001, 0.02)}
DIFFUSERS_NAMES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}


def make(name: ScheduleName, n: int = 1000) -> DiscreteVP:
    return DiscreteVP(name, *BETAS[name], n)


@pytest.mark.parametrize("name", SCHEDULES)
def test_alphas_are_those_of_diffusers(name: ScheduleName, diffusers: Any) -> None:
    start, end = BETAS[name]
    scheduler = diffusers.DDPMScheduler(beta_start=start, beta_end=end, beta_schedule=DIFFUSERS_NAMES[name])
    torch.testing.assert_close(make(name).alphas_cumprod.float(), scheduler.alphas_cumprod, rtol=2e-4, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_preserve_variance_and_grow_noisier(name: ScheduleName) -> None:
    levels = [make(name).level(t) for t in range(1000)]
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1, abs=1e-12) for level in levels)
    assert all(a.sigma < b.sigma for a, b in pairwise(levels))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("t", [0.0, 0.25, 1.0, 17.5, 500.0, 998.0, 998.9, 999.0])
def test_time_and_level_are_each_others_inverse(name: ScheduleName, t: float) -> None:
    schedule = make(name)
    assert schedule.timestep(schedule.level(t)) == pytest.approx(t, abs=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_levels_of_training_are_those_of_sampling(name: ScheduleName) -> None:
    schedule, times = make(name), torch.tensor([0, 3, 500, 999])
    trained = schedule.at(times)
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
