"""Averages of a training that runs, or was ended, as pipelines to draw with."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.core.artifact import load_tensors
from darkroom.core.checkpoint import STATE, OneFile
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import DIFFUSERS_WEIGHTS
from darkroom.inference.pipeline import Pipeline
from darkroom.serving.limits import Limits
from darkroom.studio.checkpoints import ASSEMBLED, TRAININGS, checkpoints, situation
from darkroom.studio.comparison import compare, ways_of
from darkroom.studio.models import LATEST, Models
from darkroom.studio.request import PageRequest
from darkroom.studio.work import Studio

Save = Callable[[int, Mapping[str, Tensor]], None]
TRAINING = "0123456789abcdef0123456789abcdef"


class Part:
    """A part of a checkpoint."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = state

    def state_dict(self) -> Mapping[str, Any]:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        raise AssertionError("nothing resumes here")


@pytest.fixture
def project(small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished project, the current folder."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(small_pipeline / name, tmp_path / name)
    for name in ("artifacts", "data", "src", "stages"):
        shutil.copytree(small_pipeline / name, tmp_path / name, symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    return tmp_path


@pytest.fixture
def weights(project: Path) -> dict[str, Tensor]:
    return load_tensors(project / "artifacts" / "unet" / DIFFUSERS_WEIGHTS)


@pytest.fixture
def save(project: Path) -> Save:
    def write(step: int, average: Mapping[str, Tensor]) -> None:
        folder = TRAININGS / TRAINING / f"step_{step:09d}"
        folder.mkdir(parents=True)
        parts = {"ema": Part(average), "phase 0": Part({"network": {"not": torch.zeros(1)}, "optimizers": []})}
        OneFile().write(folder, {"step": step, "end": 100, "profile": {}, "parts": parts})

    return write


def test_the_average_draws_what_evaluate_would_make_of_it(
    project: Path, weights: dict[str, Tensor], save: Save
) -> None:
    """Catches an average under another process, scale, prediction or autoencoder than the training's own."""
    save(7, weights)
    models = Models([Path("artifacts/pipeline")], project)
    assert models.names()[:3] == ["artifacts/pipeline", LATEST, "train_unet 0123, step 7"]
    prompt = models.defaults("artifacts/pipeline").prompt
    drawn = models.model(LATEST)
    evaluated = Pipeline.from_pretrained("artifacts/pipeline", device="cpu")
    for pipeline in (drawn.pipeline, Pipeline.from_pretrained(ASSEMBLED / "01234567-step-7", device="cpu")):
        assert torch.equal(pipeline.text_to_image(prompt).tensor, evaluated.text_to_image(prompt).tensor)
    assert "params.yaml, the data or the code" in drawn.remark, "no training here has this fingerprint"


def test_the_latest_is_the_newest_at_each_drawing_and_two_are_compared(
    project: Path, weights: dict[str, Tensor], save: Save
) -> None:
    models = Models([], project)
    assert models.names() == []
    assert situation().startswith("No checkpoint of train_unet is here")
    with pytest.raises(DarkroomError, match="No checkpoint of train_unet is here"):
        models.model(LATEST)
    save(5, {name: 0.9 * value for name, value in weights.items()})
    assert models.model(LATEST).key == "train_unet 0123, step 5"
    save(10, weights)
    assert models.model(LATEST).key == "train_unet 0123, step 10"
    assert "is of step 10" in situation()
    (project / "drawn").mkdir()
    names = [one.name for one in checkpoints()]
    found = compare(
        Studio(models, Limits(seconds=600), project / "drawn"),
        ways_of("models", names, ""),
        PageRequest(["a red circle"]),
    )
    assert found.labels == ["train_unet 0123, step 10", "train_unet 0123, step 5"]
    assert not torch.equal(found.pictures[0][0], found.pictures[1][0])


def test_a_picture_of_a_checkpoint_is_not_called_of_an_unknown_model(
    project: Path, weights: dict[str, Tensor], save: Save
) -> None:
    """Catches an audit's "the chain is broken" about a training that runs as it should."""
    save(5, weights)
    (project / "drawn").mkdir()
    studio = Studio(Models([], project), Limits(seconds=600), project / "drawn")
    drawn = studio.draw(LATEST, PageRequest(["a red circle"]))
    said = studio.lineage(drawn.files[0])
    assert "step_000000005" in said
    assert "broken" not in said


def test_what_is_damaged_gone_or_of_another_network_is_said_in_a_line(
    project: Path, weights: dict[str, Tensor], save: Save
) -> None:
    models = Models([], project)
    save(1, weights)
    (TRAININGS / TRAINING / "step_000000001" / STATE).write_text("{}")
    with pytest.raises(DarkroomError, match=r"step_000000001: is damaged .*Refresh"):
        models.model("train_unet 0123, step 1")
    shutil.rmtree(TRAININGS / TRAINING / "step_000000001")
    with pytest.raises(DarkroomError, match="is not here; choose another model, or press Refresh"):
        models.model("train_unet 0123, step 1")
    save(2, {name: value for i, (name, value) in enumerate(weights.items()) if i})
    with pytest.raises(DarkroomError, match=r"not of the network in params\.yaml") as refused:
        models.model(LATEST)
    assert "\n" not in str(refused.value)
    assert not [one for one in ASSEMBLED.iterdir() if one.is_dir()], "no half of a pipeline"
