"""Ended at any moment, in any stage, in any way, and continued: the results are those of the undisturbed run."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import kills, recipe

Environment = Callable[[Path], dict[str, str]]
SEED = 1
SEEDS, KILLS, EVERY = (1, 2), 25, 20  # of the full test: two halves, kills in each, steps between checkpoints
OTHER = "evaluate"  # ended in the quick test besides the trainings
MORE = 3  # kills of a round, at random besides one in each stage


def test_a_pipeline_ended_on_its_way_gives_the_same(
    small: Any, quiet: Environment, new_project: Callable[..., Path], tmp_path: Path
) -> None:
    """Once in each stage that trains and once in one that does not, in each way; in every stage by the test below."""
    project, account, draw = new_project(tmp_path), kills.Account(), random.Random(SEED)
    stages = [*recipe.TRAINED, OTHER]
    moments = [
        kills.Moment(m.stage, m.kind, step=draw.randrange(recipe.CHECKPOINT_EVERY + 1, recipe.STEPS))
        if m.stage in recipe.TRAINED
        else m
        for m in small.moments(draw, stages)
    ]
    small.disturb(project, quiet(project), moments, account)
    print(account.table(list(small.seconds)))
    assert account.total == len(stages) == len(kills.KINDS)
    assert {kind for _, kind in account.kills} == set(kills.KINDS)
    assert {stage for stage, _ in account.kills} >= set(recipe.TRAINED)
    assert account.losses.keys() == set(recipe.TRAINED)
    assert max(max(lost) for lost in account.losses.values()) <= recipe.CHECKPOINT_EVERY
    assert set(account.gentle) == {0}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_scenes_quick_survives_fifty_ends_at_random_moments(
    seed: int, environment_of: Environment, new_project: Callable[..., Path], tmp_path: Path
) -> None:
    """With tracking. In each round every stage is ended once, and some a second time."""

    def environment(project: Path, **settings: str) -> dict[str, str]:
        traced: dict[str, str] = kills.traced(environment_of(project), project.parent, **settings)
        return traced

    project = new_project(tmp_path / "undisturbed", small=False)
    undisturbed = kills.Undisturbed.run(project, environment(project, checkpoint_minutes="0"))
    account, draw, rounds = kills.Account(), random.Random(seed), 0
    while account.total < KILLS:
        rounds += 1
        project = new_project(tmp_path / f"round {rounds}", small=False)
        stages = [
            *undisturbed.seconds,
            *draw.choices(list(undisturbed.seconds), list(undisturbed.seconds.values()), k=MORE),
        ]
        moments = undisturbed.moments(draw, stages)
        undisturbed.disturb(project, environment(project, checkpoint_steps=str(EVERY)), moments, account)
        print(f"round {rounds}: as undisturbed after {account.total} ends in all", flush=True)
    print(account.table(list(undisturbed.seconds)))
    assert {stage for stage, _ in account.kills} >= set(undisturbed.seconds)
    assert {kind for _, kind in account.kills} == set(kills.KINDS)
    assert max(max(lost) for lost in account.losses.values()) <= EVERY
    assert set(account.gentle) == {0}
