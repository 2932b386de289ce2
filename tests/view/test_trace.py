"""What is kept of a walk: the moments asked for, each with what was expected there."""

from itertools import pairwise

import pytest
import torch

from darkroom.view.trace import Trace, evenly


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 31, 1001])
def test_moments_are_spread_evenly_from_end_to_end(n: int) -> None:
    chosen = evenly(n, 8)
    assert len(chosen) == min(n, 8)
    assert (chosen[0], chosen[-1]) == (0, n - 1)
    gaps = {b - a for a, b in pairwise(chosen)}
    assert not gaps or (min(gaps) > 0 and max(gaps) - min(gaps) <= 1)


def walk(trace: Trace, n: int, rows: int = 3) -> None:
    """Ten times the state is where it stands; a hundred times the state what is expected from there."""
    for step in range(n):
        trace.watch(step, torch.full((rows,), 10.0 * (step + 1)), torch.full((rows,), 100.0 * step))


def test_each_state_comes_with_what_was_expected_there_and_the_last_with_itself() -> None:
    trace = Trace([0, 2, 5], rows=2)
    trace.start(torch.zeros(3))
    walk(trace, 5)
    found = [(state, x.tolist(), x0.tolist()) for state, x, x0 in trace]
    assert found == [(0, [0, 0], [0, 0]), (2, [20, 20], [200, 200]), (5, [50, 50], [50, 50])]


def test_without_its_beginning_a_walk_starts_after_the_first_step() -> None:
    trace = Trace([0, 1, 2], rows=1)
    walk(trace, 2)
    assert [state for state, _, _ in trace] == [1, 2]
