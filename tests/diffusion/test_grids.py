"""The times a sampler stands at: the published tables, and diffusers' numbers."""

from typing import Any, get_args

import pytest

from darkroom.config.sampling import Spacing
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.continuous import VE, Flow
from darkroom.diffusion.grids import level_grid, shortened, timesteps
from darkroom.diffusion.schedule import CLEAN, Level
from tests.support.diffusion import make_flow, make_ve, make_vp

CONTINUOUS = [make_ve(25.0, 1e-5), make_flow(0.001)]

# Lin et al. 2024, table 2: 10 of 1000 steps, which the paper counts from 1.
TABLE = {
    "leading": [1, 101, 201, 301, 401, 501, 601, 701, 801, 901],
    "linspace": [1, 112, 223, 334, 445, 556, 667, 778, 889, 1000],
    "trailing": [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000],
}


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_the_published_table(spacing: Spacing) -> None:
    assert [t + 1 for t in reversed(timesteps(10, 1000, spacing, steps_offset=0))] == TABLE[spacing]


@pytest.mark.parametrize("spacing", get_args(Spacing))
@pytest.mark.parametrize("n", [1, 2, 7, 20, 30, 50, 999, 1000])
@pytest.mark.parametrize("offset", [0, 1])
def test_the_times_of_diffusers(spacing: Spacing, n: int, offset: int, diffusers: Any) -> None:
    scheduler = diffusers.DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(n)
    expected = [min(int(t), 999) for t in scheduler.timesteps]
    found = timesteps(n, 1000, spacing, offset)
    if spacing == "linspace":  # diffusers rounds to whole times, where the network has no need to
        assert found == pytest.approx(expected, abs=0.5)
    else:
        assert found == expected


@pytest.mark.parametrize("spacing", get_args(Spacing))
@pytest.mark.parametrize("n", [1, 3, 20, 1000])
def test_a_grid_falls_from_noise_to_the_clean_picture(spacing: Spacing, n: int) -> None:
    levels = level_grid(make_vp("linear", 0.0001, 0.02, 1000), n, spacing)
    assert len(levels) == n + 1
    assert levels[-1] == CLEAN
    sigmas = [level.sigma for level in levels]
    assert sigmas == sorted(sigmas, reverse=True)
    assert len(set(sigmas)) == n + 1


@pytest.mark.parametrize("n", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(n: int) -> None:
    with pytest.raises(DarkroomError, match=rf"num_inference_steps = {n}: give 1 to 1000"):
        timesteps(n, 1000, "trailing", 0)


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_the_times_of_the_dpm_solvers_of_diffusers(spacing: Spacing, diffusers: Any) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(timestep_spacing=spacing, steps_offset=1)
    scheduler.set_timesteps(20)
    assert timesteps(20, 1000, spacing, 1, omit_last=True) == scheduler.timesteps.tolist()


@pytest.mark.parametrize("n", [1, 5, 20])
def test_karras_spacing_is_that_of_diffusers(n: int, diffusers: Any) -> None:
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = diffusers.EulerDiscreteScheduler(
        **betas, timestep_spacing="leading", steps_offset=1, use_karras_sigmas=True
    )
    scheduler.set_timesteps(n)
    schedule = make_vp("scaled_linear", 0.00085, 0.012, 1000)
    levels = level_grid(schedule, n, "leading", 1, karras=True)
    assert [level.sigma / level.alpha for level in levels] == pytest.approx(scheduler.sigmas.tolist(), rel=1e-4)
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1) for level in levels)
    assert [schedule.timestep(level) for level in levels[:-1]] == pytest.approx(scheduler.timesteps.tolist(), abs=0.01)


def test_a_walk_may_end_at_the_first_training_time() -> None:
    schedule = make_vp("linear", 0.0001, 0.02, 1000)
    clean = level_grid(schedule, 20, "leading", 1)
    assert level_grid(schedule, 20, "leading", 1, set_alpha_to_one=False) == [*clean[:-1], schedule.level(0)]


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_a_walk_that_reaches_the_first_training_time_ends_clean(spacing: Spacing) -> None:
    schedule = make_vp("linear", 0.0001, 0.02, 1000)
    levels = level_grid(schedule, 20, spacing, set_alpha_to_one=False)
    assert levels == level_grid(schedule, 20, spacing)
    assert levels[-2:] == [schedule.level(0), CLEAN]


def test_two_steps_at_one_level_are_refused() -> None:
    with pytest.raises(DarkroomError, match="two steps stand at one level"):
        level_grid(make_vp("linear", 0.0001, 0.02, 1000), 1000, "leading", steps_offset=1)


@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_every_strength_is_a_start_of_its_own(spacing: Spacing, karras: bool) -> None:
    schedule = make_vp("linear", 0.0001, 0.02, 1000)
    levels = level_grid(schedule, 20, spacing, 1, karras=karras)
    assert shortened(schedule, levels, 1.0) == levels
    for k in range(1, 21):
        assert shortened(schedule, levels, k / 20) == levels[-k - 1 :]
    starts = []
    for strength in (1e-8, 0.001, 0.02, 0.06, 0.31, 0.5, 0.52, 0.97, 0.999):
        left = shortened(schedule, levels, strength)
        sigmas = [level.sigma for level in left]
        assert sigmas == sorted(set(sigmas), reverse=True)
        assert left[-1] == CLEAN
        assert strength * 20 <= len(left) - 1 < strength * 20 + 1
        starts.append(sigmas[0])
    assert starts == sorted(starts)
    within_the_last = 2 if spacing == "linspace" else 0  # whose last step starts at the first time
    assert len(set(starts)) >= len(starts) - within_the_last


@pytest.mark.parametrize("process", CONTINUOUS)
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize("n", [1, 2, 7, 500])
def test_a_continuous_grid_has_as_many_noisy_levels_as_steps(process: VE | Flow, spacing: Any, n: int) -> None:
    levels = level_grid(process, n, spacing)
    times = [process.timestep(level) for level in levels]
    last = process.earliest if spacing == "linspace" and n > 1 else 1000 / n
    assert times == pytest.approx([*(1000 - (1000 - last) * i / max(n - 1, 1) for i in range(n)), 0])
    assert levels[0] == process.level(1000)
    assert levels[-1] == CLEAN


@pytest.mark.parametrize("process", CONTINUOUS)
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"spacing": "leading"}, "spacing = 'leading': is laid out on discrete times, which .*; choose linspace or tr"),
        ({"steps_offset": 1}, "steps_offset = 1: is about discrete times, which this process has not; give 0"),
        ({"omit_last": True}, "omit_last = True: is about discrete times, which this process has not; give False"),
        ({"set_alpha_to_one": False}, "set_alpha_to_one = False: is about discrete times, .*; give True"),
        ({"num_inference_steps": 0}, "num_inference_steps = 0: give 1 or more"),
    ],
)
def test_conventions_of_discrete_times_are_refused(process: VE | Flow, how: dict[str, Any], message: str) -> None:
    with pytest.raises(DarkroomError, match=message):
        level_grid(process, **{"num_inference_steps": 10, "spacing": "trailing", **how})


@pytest.mark.parametrize("n", [1, 5, 20])
def test_karras_spacing_of_a_variance_exploding_process_is_the_published_formula(n: int) -> None:
    levels = level_grid(CONTINUOUS[0], n, "linspace", karras=True)
    plain = level_grid(CONTINUOUS[0], n, "linspace")
    high, low = (float(plain[i].sigma) ** (1 / 7) for i in (0, -2))
    expected = [(high + i / max(n - 1, 1) * (low - high)) ** 7 for i in range(n)]
    assert [level.sigma for level in levels[:-1]] == pytest.approx(expected)
    assert {level.alpha for level in levels} == {1}


@pytest.mark.parametrize("process", [CONTINUOUS[1], make_vp("cosine", 0.1, 0.2, 1000, rescale_betas_zero_snr=True)])
def test_karras_spacing_needs_an_end(process: Any) -> None:
    with pytest.raises(DarkroomError, match="karras = True: spaces sigma / alpha, which has no end"):
        level_grid(process, 10, "trailing", karras=True)


def test_a_grid_without_terminal_signal_starts_at_noise_alone() -> None:
    schedule = make_vp("linear", 0.0001, 0.02, 1000, rescale_betas_zero_snr=True)
    for spacing in ("trailing", "linspace"):
        assert level_grid(schedule, 20, spacing)[0] == Level(0.0, 1.0)


@pytest.mark.parametrize("process", CONTINUOUS)
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_a_strength_is_a_share_of_continuous_time_too(process: VE | Flow, spacing: Any) -> None:
    levels = level_grid(process, 20, spacing)
    assert shortened(process, levels, 1.0) == levels
    assert shortened(process, levels, 0.5) == levels[-11:]
    between = shortened(process, levels, 0.525)  # half a step more, in eleven steps
    assert len(between) == 12
    halfway = (process.timestep(levels[9]) + process.timestep(levels[10])) / 2
    assert process.timestep(between[0]) == pytest.approx(halfway)
