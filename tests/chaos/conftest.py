"""A small project that nothing disturbed, to hold the disturbed ones against; and the means to disturb."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml

from darkroom.runner.stage import run_stage
from tests.support import kills, recipe

ROOT = Path(__file__).parents[2]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
STARTS_IN = 3.0  # seconds that a stage takes to begin its work, about

Load = Callable[[Path], ModuleType]
Environment = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="session")
def new_project(copied_project: Callable[[Path], None]) -> Callable[..., Path]:
    """(folder, small=True) -> a copy of the project in it that has run nothing, of scenes-quick, made small or not."""

    def make(folder: Path, small: bool = True) -> Path:
        project = folder / "darkroom"
        project.mkdir(parents=True)
        copied_project(project)
        changes = recipe.CHANGES if small else {}
        recipe.write(project / "recipes" / "scenes-quick.yaml", project / "params.yaml", changes)
        return project

    return make


@pytest.fixture(scope="session")
def quiet(environment_of: Environment) -> Environment:
    """For a project, an environment without tracking, in one thread, with a checkpoint every few steps."""

    def environment(project: Path) -> dict[str, str]:
        traced: dict[str, str] = kills.traced(environment_of(project), project.parent, **recipe.QUIET)
        return traced

    return environment


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


@pytest.fixture(scope="session")
def small(
    tmp_path_factory: pytest.TempPathFactory, new_project: Callable[..., Path], quiet: Environment, load: Load
) -> Any:
    """The small recipe, undisturbed and without a checkpoint. Leave its folder as it is.

    All stages in this process, which has loaded everything already; then dvc writes its lock file.
    """
    project = new_project(tmp_path_factory.mktemp("undisturbed"))
    stages = list(yaml.safe_load((project / "dvc.yaml").read_text())["stages"])
    for stage in stages:
        with (
            as_a_stage(project, recipe.QUIET | {"checkpoint_steps": "0", "checkpoint_minutes": "0"}),
            pytest.raises(SystemExit) as left,
        ):
            run_stage(stage, load(ROOT / "stages" / f"{stage}.py").body)
        assert left.value.code == 0, stage
    command = [sys.executable, "-m", "dvc", "commit", "-f"]
    subprocess.run(command, cwd=project, env=quiet(project), check=True, capture_output=True)
    return kills.Undisturbed(project, dict.fromkeys(stages, STARTS_IN), kills.results(project))


@pytest.fixture
def finished(small: Any, tmp_path: Path) -> Path:
    """A finished project to be damaged."""
    project = tmp_path / "darkroom"
    shutil.copytree(small.project, project, symlinks=True)
    return project


@pytest.fixture
def run_here(load: Load, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """(project, stage, settings) -> exit status and what was said on stderr, of a stage that is run in this process."""

    def run(project: Path, stage: str, **settings: str) -> tuple[int, str]:
        capsys.readouterr()
        with as_a_stage(project, recipe.QUIET | settings), pytest.raises(SystemExit) as left:
            run_stage(stage, load(ROOT / "stages" / f"{stage}.py").body)
        assert isinstance(left.value.code, int)
        return left.value.code, capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def recorded() -> Callable[[Path, str], dict[str, str]]:
    """(project, stage) -> {output: hash} as dvc.lock has them."""

    def outputs(project: Path, stage: str) -> dict[str, str]:
        lock = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))
        return {out["path"]: out["md5"] for out in lock["stages"][stage]["outs"]}

    return outputs


@pytest.fixture
def mounted() -> Iterator[Callable[..., None]]:
    """mount OPTIONS…, undone at the end; skips where that is not allowed."""
    places: list[str] = []

    def mount(*options: str) -> None:
        if shutil.which("mount") is None:
            pytest.skip("no mount here")
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        if not any("remount" in option for option in options):
            places.append(options[-1])

    yield mount
    for place in reversed(places):
        subprocess.run(["umount", "-l", place], check=True)
