"""Stages run in this process, which has loaded everything already."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml

from darkroom.runner.stage import run_stage
from tests.support import recipe
from tests.support.loading import load_script
from tests.support.projects import ROOT, copy_project, environment_of

REPOSITORY = "https://git.example.org/pictures/darkroom"  # where the small project's commits are to be seen
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


@contextmanager
def as_a_stage(project: Path, settings: dict[str, str]) -> Iterator[None]:
    """In this block the process is as that of a stage of the project; settings: as of `kills.traced`."""
    before, here = dict(os.environ), Path.cwd()
    handlers, threads = [signal.getsignal(number) for number in SIGNALS], torch.get_num_threads()
    for name in before:
        if name.startswith(("DARKROOM_", "MLFLOW_", "DVC_")):
            del os.environ[name]
    os.environ |= {f"DARKROOM_{name.upper()}": value for name, value in settings.items()}
    os.chdir(project)
    try:
        with patch("darkroom.runner.stage.run_own_code"):
            yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
        for number, handler in zip(SIGNALS, handlers, strict=True):
            signal.signal(number, handler)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)


def run_here(project: Path, stage: str, settings: dict[str, str]) -> int:
    """The exit status of a stage of the project that is run in this process."""
    with as_a_stage(project, settings), pytest.raises(SystemExit) as left:
        run_stage(stage, load_script(ROOT / "stages" / f"{stage}.py").body)
    assert isinstance(left.value.code, int)
    return left.value.code


def new_project(folder: Path, small: bool = True) -> Path:
    """A copy of the project in `folder` that has run nothing, of scenes-quick, made small or not."""
    project = folder / "darkroom"
    project.mkdir(parents=True)
    copy_project(project)
    recipe.write(project / "recipes" / "scenes-quick.yaml", project / "params.yaml", recipe.CHANGES if small else {})
    return project


def finish_small(folder: Path) -> None:
    """Make `folder`/darkroom a finished and tracked project of the small recipe, without a checkpoint.

    All its stages in this process; then dvc writes its lock file.
    """
    project = new_project(folder)
    remote = ("git", "remote", "add", "origin", f"{REPOSITORY}.git")
    subprocess.run(remote, cwd=project, check=True, capture_output=True)
    settings = {"threads": "1", "checkpoint_steps": "0", "checkpoint_minutes": "0"}
    for stage in yaml.safe_load((project / "dvc.yaml").read_text())["stages"]:
        assert run_here(project, stage, settings) == 0, stage
    command = [sys.executable, "-m", "dvc", "commit", "-f"]
    subprocess.run(command, cwd=project, env=environment_of(project), check=True, capture_output=True)
