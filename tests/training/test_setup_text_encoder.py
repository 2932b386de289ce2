"""The stage setup_text_encoder where conditions are classes; what it asks of the data is in test_demands.py."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from darkroom.config.params import load as params_of
from darkroom.core.artifact import read_json
from darkroom.data.head import Head
from darkroom.data.prepared import PreparedWriter, Row
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account

ROOT = Path(__file__).parents[2]
DIGITS = ("zero", "one", "two")


def write(labels: Sequence[int]) -> None:
    """Data whose training pictures have these labels; none of them: pictures without labels."""
    writer = PreparedWriter(Path("data/prepared"), "digits", (Head("label", DIGITS),) if labels else (), True, 8, 1)
    for split, shown in (("train", labels or [-1]), ("validation", [2] if labels else [-1])):
        for i, label in enumerate(shown):
            known = ((label,), (True,)) if labels else ((), ())
            writer.add(split, Row(np.full((8, 8), i, np.uint8), f"{split}{i}.png", "a digit", *known))
    writer.finish()


@pytest.fixture
def setup(load: Callable[[Path], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Runs the stage's body as mnist-score-transformer has it, whose conditions are classes."""
    monkeypatch.chdir(tmp_path)
    body = load(ROOT / "stages" / "setup_text_encoder.py").body
    params = params_of(ROOT / "recipes" / "mnist-score-transformer.yaml")
    untracked = Run(Account("setup_text_encoder", {}, {}, {}, {}, "", False), tracked=False)
    return lambda: body(params, Work(torch.device("cpu"), untracked))


def test_the_classes_are_those_of_the_data(setup: Callable[[], object]) -> None:
    write([0, 1, 2, 1])
    assert setup() == {"classes": 3}
    assert read_json("artifacts/text_encoder/config.json")["classes"] == list(DIGITS)
