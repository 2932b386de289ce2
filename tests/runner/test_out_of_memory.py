"""What is said where memory runs out: remedies that are there, and none that is in force already.

Would catch a remedy that the stage does not have, or that was taken before, and errors taken for a lack of memory.
"""

from pathlib import Path

import pytest
import torch

from darkroom.config.params import Params, load
from darkroom.runner.out_of_memory import is_out_of_memory, peak, remedies

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Params:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DARKROOM_CHECKPOINT_ACTIVATIONS", raising=False)
    return load(RECIPES / "scenes.yaml")


def test_the_first_remedies_change_no_result(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, last = remedies("train_unet", params)
    assert first == "DARKROOM_CHECKPOINT_ACTIVATIONS=1 (the same numbers)"
    assert second == "train_unet.accumulation: 2 (the same step up to rounding)"
    assert last == "train_unet.batch_size below 96"
    monkeypatch.setenv("DARKROOM_CHECKPOINT_ACTIVATIONS", "1")
    assert remedies("train_unet", params) == [second, last]
    least = params.train_unet.model_copy(update={"accumulation": 1, "batch_size": 1, "precision": "fp32"})
    assert remedies("train_unet", params.model_copy(update={"train_unet": least})) == ["train_unet.precision: bf16"]


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_stage_of_every_recipe_has_a_remedy_that_it_knows(recipe: Path, params: Params) -> None:
    params = load(recipe)
    for stage, section in params:
        for one in remedies(stage, params):
            key = one.split()[0].rstrip(":").split(".")
            if key[0] == stage:
                assert hasattr(section, key[1])
            assert "ACTIVATIONS" not in one or stage in ("train_vae", "train_unet")


def test_networks_that_recompute_nothing_are_not_said_to(params: Params) -> None:
    ddpm = load(RECIPES / "mnist-score-concat.yaml")
    assert not any("ACTIVATIONS" in one for one in remedies("train_unet", ddpm) + remedies("train_vae", ddpm))


def test_an_error_counts_by_what_it_was_raised_from() -> None:
    outer = RuntimeError("compilation failed")
    outer.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(outer)
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(OSError(28, "No space left on device"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_pytorchs_own_refusal_is_known() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)


def test_the_peak_is_this_process_s_own() -> None:
    used, there = peak(torch.device("cpu"))
    assert 50 * 2**20 < used < there
