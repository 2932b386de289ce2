"""Two hundred hostile pictures, pipelines, checkpoints and tokenizers: one line each, before memory or time is spent.

Catches: a traceback, a hang, or a bomb that goes off: what a stranger's file says is believed before it is looked at.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from darkroom import cli
from tests.support import hostile_models, pipelines

ROOT = Path(__file__).parents[2]
SEED, SAMPLE = 16, 24
SECONDS, MEMORY = 10, 1 << 30  # of the processor, and above what sound models take


@pytest.fixture(scope="module")
def base(
    load: Callable[[Path], ModuleType],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A sound pipeline, a picture it drew, a single file, a diffusers folder."""
    from darkroom.interop.diffusers import write_folder
    from darkroom.interop.source import read_model

    folder = tmp_path_factory.mktemp("models")
    shutil.move(pipelines.assembled(folder / "made"), folder / "pipeline")
    load(ROOT / "recipes" / "make_tiny_sd15.py").main(folder / "single", folder / "captioned")
    write_folder(read_model(folder / "single" / "model.safetensors"), folder / "diffusers")
    drawn = ["generate", "a small red circle", "--steps", "1", "--pipeline", "pipeline", "--out", "drawn.png"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["darkroom", *drawn])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
    return folder


@pytest.mark.parametrize("sample", [SAMPLE, pytest.param(0, marks=pytest.mark.slow)], ids=["sample", "all"])
def test_hostile_models(sample: int, base: Path, environment_of: Callable[[Path], dict[str, str]]) -> None:
    program = [sys.executable, "-m", hostile_models.__name__, str(base), str(SEED), str(sample)]
    done = subprocess.run(program, cwd=ROOT, env=environment_of(ROOT), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(outcomes) >= (sample or 200)
    faults = [f"{one['name']}: {fault}" for one in outcomes if (fault := _fault(one))]
    assert not faults, "\n".join(faults)


def _fault(one: dict[str, Any]) -> str | None:
    said = one["said"]
    if one["status"] not in (0, 1):
        return f"exit status {one['status']}: {said}"
    if one["seconds"] > SECONDS:
        return f"{one['seconds']:.1f} s"
    if one["memory"] > MEMORY:
        return f"{one['memory'] >> 20} MiB"
    if one["status"] == 1 and (said.count("\n") != 1 or not said[:-1].isprintable() or len(said) > 2000):
        return f"not one line that can be printed: {said!r}"
    if one["says"] is not None and (one["status"] != 1 or not re.search(one["says"], said)):
        return f"{one['says']} is not in {said!r}"
    return None
