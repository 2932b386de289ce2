"""Batches made ahead, and losses in two halves: the same training, to the bit, whatever a step is made of."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.training.engine.batches import AHEAD, Batch, Feeder, feeder
from darkroom.training.engine.distributed import ALONE
from tests.support import pair

CPU = torch.device("cpu")


def numbered(step: int) -> list[list[Batch]]:
    return [[Batch({"step": torch.tensor(step)})]]


def test_steps_are_made_ahead_in_order_and_none_beyond_the_end() -> None:
    """A batch made twice or in vain is time lost; one of another step trains on the wrong data."""
    made: list[int] = []

    def make(step: int) -> list[list[Batch]]:
        made.append(step)
        return numbered(step)

    with feeder(make, lambda step: False, CPU) as ahead:
        found = [int(ahead.get(step, 20)[0][0]["step"]) for step in range(3, 20)]
    assert found == list(range(3, 20))
    assert sorted(made) == list(range(3, 20))


def test_what_waits_is_made_in_its_turn() -> None:
    """Hard negatives found with weights of some steps ago would be others than after a resume at that step."""
    turn = 0
    early: list[int] = []

    def make(step: int) -> list[list[Batch]]:
        early.append(step - turn)
        if step % 5 == 0:
            assert step == turn
        return numbered(step)

    with feeder(make, lambda step: step % 5 == 0, CPU) as ahead:
        for turn in range(20):
            ahead.get(turn, 20)
    assert max(early) <= AHEAD


def test_an_error_made_ahead_is_raised_in_its_turn() -> None:
    def make(step: int) -> list[list[Batch]]:
        if step == 2:
            raise ValueError("picture 7 is torn")
        return numbered(step)

    with feeder(make, lambda step: False, CPU) as ahead:
        ahead.get(0, 9)
        ahead.get(1, 9)
        with pytest.raises(ValueError, match="picture 7 is torn"):
            ahead.get(2, 9)


def tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from tensors(value)


@pytest.mark.parametrize("training", ["unet", "vae", "contrastive"])
def test_a_training_fed_ahead_is_the_training(training: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, but for the copies: to the bit, over the start of a critic and over searches for hard negatives."""
    make = getattr(pair, training)
    expected, fed, get = make(ALONE).run(), [], Feeder.get
    monkeypatch.setattr("darkroom.training.engine.steps.makes_ahead", lambda phases: True)
    monkeypatch.setattr(Feeder, "get", lambda self, step, end: (fed.append(step), get(self, step, end))[1])
    monkeypatch.setattr(Batch, "pinned", lambda self: self)
    monkeypatch.setenv("DARKROOM_CUDA_GRAPHS", "0")
    found = make(ALONE).run()
    assert fed == list(range(len(expected.values)))
    assert found.values == expected.values
    pairs = list(zip(tensors(found.state), tensors(expected.state), strict=True))
    assert pairs
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
