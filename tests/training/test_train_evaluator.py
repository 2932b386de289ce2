"""The stage train_evaluator, on toy data of each of the three kinds.

Faults caught: judges that are said to be good beside no chance level; figures of judges without a line of what is
reached blindly; judges that stop the stage where they are only to warn, and the other way round.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from darkroom.config.merging import complete_text
from darkroom.config.params import Params
from darkroom.core.artifact import read_json
from darkroom.core.errors import DarkroomError
from darkroom.data.head import Head
from darkroom.data.prepared import PreparedWriter, Row
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account

ROOT = Path(__file__).parents[2]
CLASSES = ("zero", "one", "two")
CAPTIONS = ("a red ring", "two blue squares", "a star", "nothing")
SPLITS = {"train": 24, "validation": 12, "test": 12}
BATCH = 4


def write(kind: str) -> None:
    """Noise: pictures of which nothing can be learned. In the first class are half of them."""
    heads = (Head("label", CLASSES),) if kind == "classifier" else ()
    writer = PreparedWriter(Path("data/prepared"), "toy", heads, kind == "towers", 8, 1)
    draw = np.random.default_rng(0)
    for split, n in SPLITS.items():
        for i in range(n):
            known = (((0, 1, 0, 2)[i % 4],), (True,)) if heads else ((), ())
            caption = CAPTIONS[i % len(CAPTIONS)] if kind == "towers" else ""
            pixels = draw.integers(0, 256, (8, 8), dtype=np.uint8)
            writer.add(split, Row(pixels, f"{split}{i}.png", caption, *known))
    writer.finish()


Train = Callable[..., dict[str, Any]]


@pytest.fixture
def train(load: Callable[[Path], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Runs the stage's body with changed parameters and returns its key figures."""
    monkeypatch.chdir(tmp_path)
    stage = load(ROOT / "stages" / "train_evaluator.py")

    def call(**changes: Any) -> dict[str, Any]:
        values = yaml.safe_load(complete_text(ROOT / "recipes" / "scenes-quick.yaml"))
        small = {"vocab_size": 520, "max_length": 8, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
        own = values["train_evaluator"]
        own |= {"steps": 1, "batch_size": BATCH, "validate_every": 1}
        own["optimizer"]["learning_rate"], own["lr_schedule"]["warmup_steps"] = 1e-8, 0
        own |= {"precision": "fp32", "text": own["text"] | small, **changes}
        untracked = Run(Account("train_evaluator", {}, {}, {}, {}, "", False), tracked=False)
        return dict(stage.body(Params.model_validate(values), Work(torch.device("cpu"), untracked)))

    return call


NAMES = {"classifier": "label", "towers": f"retrieval among {BATCH}", "selfsupervised": "rotation"}


@pytest.mark.parametrize("kind", NAMES)
def test_judges_stand_beside_what_is_reached_blindly(train: Train, kind: str) -> None:
    write(kind)
    figures = train()
    assert read_json("artifacts/evaluator/config.json")["kind"] == kind
    metrics, name = read_json("reports/train_evaluator/metrics.json"), NAMES[kind]
    worse = []
    for judge in ("a", "b"):
        of = f"judge {judge}: {name} on test pictures"
        reached, chance = metrics["accuracy"]["test"][judge][name], metrics[f"{of}_by_chance"]
        assert figures[f"judge {judge}: accuracy on test pictures that it has not seen"] == reached
        assert 0 < chance < 1
        if kind == "selfsupervised":
            assert chance == 0.25
        if reached <= chance:
            worse.append(of)
    said = metrics.get("worse_than_chance", "")
    assert [part.split(" = ")[0] for part in said.split("; ") if part] == worse
    assert figures.get("worse_than_chance", "") == said
    assert all("answers given blindly" in part for part in said.split("; ") if part)


def test_judges_no_better_than_blind_stop_where_they_are_to(train: Train) -> None:
    """They always say the same, and so find what is commonest where the data are noise."""
    write("classifier")
    assert "worse_than_chance" in train()
    with pytest.raises(
        DarkroomError, match=r"label on test pictures = .* is no better than .*on_worse_than_chance: warn"
    ):
        train(on_worse_than_chance="stop")
