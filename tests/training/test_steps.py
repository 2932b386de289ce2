"""Batches made ahead, and losses in two halves: the same training, to the bit, whatever a step is made of."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.training.engine.batches import Batch, made_ahead
from darkroom.training.engine.distributed import ALONE
from tests.support import pair


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
    expected = make(ALONE).run()
    fed: list[int] = []

    def watched(losses: Any, micro_batches: Any, steps: range, device: torch.device) -> Iterator[Any]:
        for step, batches in zip(steps, made_ahead(losses, micro_batches, steps, device), strict=True):
            fed.append(step)
            yield batches

    monkeypatch.setattr("darkroom.training.engine.loop.on_cuda", lambda phases: True)
    monkeypatch.setattr("darkroom.training.engine.loop.made_ahead", watched)
    monkeypatch.setattr(Batch, "pinned", lambda self: self)
    monkeypatch.setenv("DARKROOM_CUDA_GRAPHS", "0")
    found = make(ALONE).run()
    assert fed == list(range(len(expected.values)))
    assert found.values == expected.values
    pairs = list(zip(tensors(found.state), tensors(expected.state), strict=True))
    assert pairs
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
