"""What `fit` does around a training, on a small world whose held-out losses are dictated."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from darkroom.config.params import load
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from darkroom.training.engine.fit import fit
from tests.support.worlds import World, flat

RECIPE = Path(__file__).parents[2] / "recipes" / "scenes-quick.yaml"
STEPS = 3


class Recorded:
    """Previews that keep what they are shown."""

    every = 1

    def __init__(self) -> None:
        self.shown: list[tuple[int, str, Tensor]] = []

    def show_inputs(self) -> None: ...

    def show(self, network: nn.Module, step: int, heading: str) -> None:
        self.shown.append((step, heading, flat(network).clone()))


@pytest.mark.parametrize(
    ("losses", "heading"), [([3, 1, 2], "after 2 steps, the best of 3"), ([3, 2, 1], "after 3 steps")]
)
def test_the_last_preview_is_of_the_weights_that_are_handed_on(
    losses: list[float], heading: str, world: Callable[[str], World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown before the best weights were put back, it was of the last ones, whatever was handed on."""
    dictated: Iterator[float] = iter(losses)
    task, previews = world("none").task(), Recorded()
    monkeypatch.setattr(task, "validate", lambda network: {"held_out/loss": float(next(dictated))})
    section = load(RECIPE).train_unet
    config = section.model_copy(update={"steps": STEPS, "validate_every": 1, "log_every": 1, "batch_size": 8})
    work = Work(torch.device("cpu"), Run(Account("train_unet", {}, {}, {}, {}, "", False), tracked=False))
    fitted = fit(task, config, work, tmp_path, previews)
    assert [step for step, *_ in previews.shown] == [0, 1, 2, STEPS]
    _, said, weights = previews.shown[-1]
    assert said == heading
    assert torch.equal(weights, flat(fitted.network))
    assert torch.equal(weights, previews.shown[2][2]) == (fitted.step == 2)
    assert fitted.held_out == {"held_out/loss": 1.0}
