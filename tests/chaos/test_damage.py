"""A damaged checkpoint, and a cache that takes nothing: nothing earlier is lost, and the result is the same."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom.core.artifact import content_hash
from darkroom.core.checkpoint import TENSORS
from darkroom.runner.resuming import FOLDER
from tests.support import kills, recipe

Environment = Callable[[Path], dict[str, str]]
STAGE = "train_unet"
TRAINED = ("train_vae", "setup_text_encoder", "train_unet", "train_evaluator")


def test_where_the_newest_checkpoint_is_damaged_the_one_before_counts(
    finished: Path, small: Any, quiet: Environment
) -> None:
    command, every = f"{kills.COMMAND} -s {STAGE}", recipe.CHECKPOINT_EVERY
    shutil.rmtree(finished / ".dvc" / "cache")  # where the result lies, and dvc would take it from
    repro = kills.Repro(finished, quiet(finished), f"{command} -f")
    assert repro.until(lambda: repro.stage == STAGE and repro.step > 3 * every)
    assert repro.kill("kill -9 of all") == STAGE
    before, newest = sorted((finished / FOLDER / STAGE).glob("*/step_*"))
    content = bytearray((newest / TENSORS).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / TENSORS).write_bytes(content)
    again = kills.Repro(finished, quiet(finished), command).finish()
    assert f"{newest.name}: damaged" in again.said
    assert again.resumed[STAGE] == int(before.name.removeprefix("step_"))
    assert kills.results(finished) == small.results


@pytest.mark.slow
@pytest.mark.parametrize("stage", TRAINED)
def test_a_stage_that_is_lost_after_its_training_writes_everything_without_a_step(
    stage: str, finished: Path, run_here: Any, recorded: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outputs = recorded(finished, stage)
    (finished / "dvc.lock").unlink()  # where it names the outputs, the checkpoints are of no more use
    assert run_here(finished, stage)[0] == 0
    for path in outputs:
        shutil.rmtree(finished / path) if (finished / path).is_dir() else (finished / path).unlink()
    with caplog.at_level(logging.WARNING):
        assert run_here(finished, stage)[0] == 0
    assert f"resuming from step {recipe.STEPS} " in caplog.text
    assert {path: content_hash(finished / path) for path in outputs} == outputs


@pytest.mark.slow
def test_a_cache_that_takes_nothing_costs_no_training(
    finished: Path, quiet: Environment, mounted: Callable[..., None]
) -> None:
    params = yaml.safe_load((finished / "params.yaml").read_text())
    params[STAGE]["optimizer"]["learning_rate"] *= 0.5
    (finished / "params.yaml").write_text(yaml.safe_dump(params))
    lock, cache = (finished / "dvc.lock").read_bytes(), finished / ".dvc" / "cache"
    mounted("--bind", str(cache), str(cache))
    mounted("-o", "remount,ro,bind", str(cache))
    command = f"{kills.COMMAND} -s {STAGE}"
    repro = kills.Repro(finished, quiet(finished), command)
    while repro.look():
        pass
    assert repro.process.returncode != 0
    assert "Read-only file system" in repro.said
    assert (finished / "dvc.lock").read_bytes() == lock
    mounted("-o", "remount,rw,bind", str(cache))
    again = kills.Repro(finished, quiet(finished), command).finish()
    assert again.resumed[STAGE] == recipe.STEPS
    resumed = kills.results(finished)
    assert resumed["dvc.lock"] != lock
    shutil.rmtree(finished / FOLDER)
    kills.Repro(finished, quiet(finished), f"{command} -f").finish()
    assert kills.results(finished) == resumed
    assert content_hash(finished / "artifacts/unet").encode() in resumed["dvc.lock"]
