"""The probability flow, solved to a tolerance."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.core.errors import DarkroomError
from darkroom.diffusion.grids import level_grid
from darkroom.diffusion.process import Process
from darkroom.diffusion.schedule import Level
from tests.support.diffusion import make_flow, make_vp, sample

SCHEDULE = make_vp("linear", 0.0001, 0.02, 1000)


def no_noise(number: int) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def test_the_ode_is_solved_to_its_tolerance_in_few_evaluations(
    process: Process, gaussian: Any, draw: Callable[..., Tensor]
) -> None:
    world, asked = gaussian(0.4, 0.3), []

    def denoise(x: Tensor, level: Level) -> Tensor:
        asked.append(level)
        return world.denoise(x, level)

    levels = level_grid(process, 20, "linspace")[:-1]
    x = process.spread * draw(1, 1, 8, 8)
    exact = world.flow(x, levels[0], levels[-1])
    errors, evaluations = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        asked.clear()
        found = sample(
            "ode",
            denoise,
            x,
            levels,
            no_noise,
            tolerance=tolerance,
            at_ratio=process.at_ratio,
        )
        errors.append(float((found - exact).abs().max()))
        evaluations.append(len(asked))
    assert errors[1] < 1e-4
    assert errors == sorted(errors, reverse=True)
    assert evaluations == sorted(evaluations)
    assert evaluations[1] < 150


def test_the_ode_does_not_depend_on_where_it_is_watched(gaussian: Any, draw: Callable[..., Tensor]) -> None:
    world, x, process, ends = gaussian(0.4, 0.3), draw(2, 1, 4, 4), make_flow(0.001), []
    for n in (2, 7, 50):
        levels, seen = level_grid(process, n, "linspace"), []

        def watch(step: int, x: Tensor, x0: Tensor, seen: list[Any] = seen) -> None:
            seen.append((step, x))

        ends.append(sample("ode", world.denoise, x, levels, no_noise, watch, at_ratio=process.at_ratio))
        assert [step for step, _ in seen] == list(range(n))
        for level, (_, shown) in zip(levels[1:-1], seen, strict=False):
            torch.testing.assert_close(shown, world.flow(x, levels[0], level), rtol=0, atol=1e-3)
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: torch.full_like(x, math.nan), "tolerance = 1e-05: not reached by ode in 5000 evaluations"),
        (lambda x: torch.sin(1e9 * x), "tolerance = 1e-05: not reached by ode in .* or draw with precision fp32"),
    ],
    ids=["no number", "no smooth network"],
)
def test_an_ode_that_cannot_be_solved_is_an_error(
    answer: Callable[[Tensor], Tensor], said: str, draw: Callable[..., Tensor]
) -> None:
    levels = level_grid(SCHEDULE, 10, "linspace")
    with pytest.raises(DarkroomError, match=said):
        sample(
            "ode",
            lambda x, level: answer(x),
            draw(1, 1, 4, 4),
            levels,
            no_noise,
            at_ratio=SCHEDULE.at_ratio,
        )
