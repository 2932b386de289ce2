"""A loss that is no number: every training stops before the update, names it, and keeps what was good."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from darkroom.core.artifact import load_tensors, save_tensors
from darkroom.core.checkpoint import TENSORS
from darkroom.core.rng import batch_indices
from darkroom.runner.resuming import FOLDER
from darkroom.training.engine import phase
from tests.support import recipe

Run = Callable[..., tuple[int, str]]
GOOD = 5  # steps before the learning rate leaps
TRAINED = ("train_vae", "setup_text_encoder", "train_unet", "train_evaluator")
MESSAGE = re.compile(
    r"darkroom: (\w+): step (\d+): (.+) is (nan|inf|-inf) at learning rate (\S+); stopped before the u"
)


def without_weight_decay(project: Path, stage: str) -> None:
    """At such a rate it would make the weights infinite in one update."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    params[stage]["optimizer"]["weight_decay"] = 0.0
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def newest(project: Path, stage: str) -> Path:
    return max((project / FOLDER / stage).glob("*/step_*"))


def check_finite(checkpoint: Path) -> None:
    tensors = load_tensors(checkpoint / TENSORS)
    assert len(tensors) > 10
    for name, value in tensors.items():
        assert bool(torch.isfinite(value.float()).all()), name


@pytest.mark.parametrize("stage", TRAINED)
def test_a_training_that_explodes_stops_before_the_update(
    stage: str, finished: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase, "learning_rate", lambda config, step, of: 1e30 if step >= GOOD else 1e-3)
    without_weight_decay(finished, stage)
    status, said = run_here(finished, stage, checkpoint_steps="1")
    assert status == 1
    assert "Traceback" not in said
    found = MESSAGE.search(said)
    assert found is not None, said
    assert found[1] == stage
    assert int(found[2]) > GOOD
    assert float(found[5]) == 1e30
    checkpoint = newest(finished, stage)
    assert int(checkpoint.name.removeprefix("step_")) == int(found[2])
    check_finite(checkpoint)


def test_a_poisoned_latent_is_met_where_it_is_drawn_and_spoils_nothing(finished: Path, run_here: Run) -> None:
    file = finished / "data/latents/train-00000.safetensors"
    tensors = load_tensors(file)
    batches = [
        batch_indices(len(tensors["mean"]), recipe.SHORT["batch_size"], step, seed=0) for step in range(recipe.STEPS)
    ]
    poisoned = int(batches[recipe.CHECKPOINT_EVERY + 1][0])
    step = next(step for step, batch in enumerate(batches) if poisoned in batch)
    tensors["mean"][poisoned, 0, 0, 0] = float("nan")
    save_tensors(file, tensors)
    status, said = run_here(finished, "train_unet")
    assert status == 1
    found = MESSAGE.search(said)
    assert found is not None, said
    assert found.group(1, 2, 3, 4) == ("train_unet", str(step), "loss", "nan")
    assert "precision fp32" in said
    if step >= recipe.CHECKPOINT_EVERY:
        check_finite(newest(finished, "train_unet"))
