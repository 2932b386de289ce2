"""What every stage does around its work.

Fault caught: params.yaml edited while a stage runs, after which dvc would record values that did not make the outputs.
"""

from pathlib import Path
from typing import Any

import pytest

from darkroom.config.merging import complete_text
from darkroom.config.params import load
from darkroom.config.stage_spec import stage_spec
from darkroom.core.errors import DarkroomError
from darkroom.runner.resuming import without_end
from darkroom.runner.stage import _check_unchanged, _manifest

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "scenes-quick.yaml"
PARAMS = Path("params.yaml")


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The sections that train_unet depends on, as it read them."""
    monkeypatch.chdir(tmp_path)
    PARAMS.write_bytes(complete_text(RECIPE).encode())
    now = load().model_dump()
    return {name: now[name] for name in ("train_unet", "train_vae")}


def change(old: str, new: str) -> None:
    text = PARAMS.read_text()
    assert old in text
    PARAMS.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  condition_dropout: 0.1", "  condition_dropout: 0.2", "train_unet.condition_dropout was 0.1, is 0.2"),
        (
            "    use_linear_projection: false",
            "    use_linear_projection: true",
            "train_unet.unet.use_linear_projection was false, is true",
        ),
        ("  reconstruction: l2", "  reconstruction: l1", "train_vae.reconstruction was l2, is l1"),
        ("  stop_at: null", "  stop_at: 5", "train_vae.stop_at was null, is 5"),
    ],
)
def test_a_stage_whose_parameters_changed_meanwhile_does_not_end(
    chosen: dict[str, Any], old: str, new: str, said: str
) -> None:
    change(old, new)
    with pytest.raises(DarkroomError, match=r"params.yaml: changed while train_unet ran, .*change it back") as error:
        _check_unchanged("train_unet", chosen)
    assert said in str(error.value)


def test_what_the_stage_does_not_depend_on_may_change(chosen: dict[str, Any]) -> None:
    change("  n_grid: 8", "  n_grid: 4")
    change("  condition_dropout: 0.1", "  condition_dropout: 0.10 # as usual")
    _check_unchanged("train_unet", chosen)


def test_a_file_that_is_none_any_more_is_named(chosen: dict[str, Any]) -> None:
    PARAMS.write_text("train_unet: [")
    with pytest.raises(DarkroomError, match=r"params\.yaml"):
        _check_unchanged("train_unet", chosen)


def test_another_end_is_the_same_training(chosen: dict[str, Any]) -> None:
    """What checkpoints and runs are known by leaves it out, in the stage's own section alone."""
    ended = {**chosen, "train_unet": {**chosen["train_unet"], "stop_at": 5}}
    assert without_end(ended, "train_unet") == without_end(chosen, "train_unet")
    assert ended["train_unet"]["stop_at"] == 5, "left as it is"
    other = {**chosen, "train_vae": {**chosen["train_vae"], "stop_at": 5}}
    assert without_end(other, "train_unet") != without_end(chosen, "train_unet")


@pytest.mark.parametrize(
    ("recipe", "stage", "kept"),
    [("mnist", "prepare_data", "mnist.json"), ("mnist", "train_vae", None), ("scenes", "prepare_data", None)],
)
def test_the_run_that_reads_the_data_keeps_its_manifest_and_no_other(
    recipe: str, stage: str, kept: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches the manifest of other data beside pictures that Darkroom drew itself."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/manifests").symlink_to(ROOT / "data/manifests")
    monkeypatch.chdir(tmp_path)
    PARAMS.write_bytes(complete_text(ROOT / "recipes" / f"{recipe}.yaml").encode())
    found = _manifest(stage_spec(stage, ROOT / "dvc.yaml"), load())
    assert (found and found.name) == kept
