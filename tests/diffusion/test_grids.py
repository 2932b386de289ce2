"""The times a sampler stands at: the published tables, and diffusers' numbers."""

from typing import Any, get_args

import pytest

from darkroom.core.choices import Spacing
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.grids import level_grid, timesteps
from darkroom.diffusion.schedule import CLEAN, DiscreteVP

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
    levels = level_grid(DiscreteVP("linear", 0.0001, 0.02, 1000), n, spacing)
    assert len(levels) == n + 1
    assert levels[-1] == CLEAN
    sigmas = [level.sigma for level in levels]
    assert sigmas == sorted(sigmas, reverse=True)
    assert len(set(sigmas)) == n + 1


@pytest.mark.parametrize("n", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(n: int) -> None:
    with pytest.raises(DarkroomError, match=rf"num_inference_steps = {n}: give 1 to 1000"):
        timesteps(n, 1000, "trailing", 0)
