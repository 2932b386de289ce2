"""A small project that nothing disturbed, to hold the disturbed ones against; and the means to disturb."""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.support import kills, recipe
from tests.support.stages import new_project, run_here

ROOT = Path(__file__).parents[2]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
STARTS_IN = 3.0  # seconds that a stage takes to begin its work, about

Load = Callable[[Path], ModuleType]
Environment = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="session", name="new_project")
def _new_project() -> Callable[..., Path]:
    """(folder, small=True) -> a copy of the project in it that has run nothing, of scenes-quick, made small or not."""
    return new_project


@pytest.fixture(scope="session")
def quiet(environment_of: Environment) -> Environment:
    """For a project, an environment without tracking, in one thread, with a checkpoint every few steps."""

    def environment(project: Path) -> dict[str, str]:
        traced: dict[str, str] = kills.traced(environment_of(project), project.parent, **recipe.QUIET)
        return traced

    return environment


@pytest.fixture(scope="session")
def small(small_pipeline: Path) -> Any:
    """The small recipe, undisturbed and without a checkpoint. Leave its folder as it is."""
    stages = yaml.safe_load((small_pipeline / "dvc.yaml").read_text())["stages"]
    return kills.Undisturbed(small_pipeline, dict.fromkeys(stages, STARTS_IN), kills.results(small_pipeline))


@pytest.fixture
def finished(small: Any, tmp_path: Path) -> Path:
    """A finished project to be damaged."""
    project = tmp_path / "darkroom"
    shutil.copytree(small.project, project, symlinks=True)
    return project


@pytest.fixture(name="run_here")
def _run_here(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """(project, stage, settings) -> exit status and what was said on stderr, of a stage that is run in this process."""

    def run(project: Path, stage: str, **settings: str) -> tuple[int, str]:
        capsys.readouterr()
        status = run_here(project, stage, recipe.QUIET | settings)
        return status, capsys.readouterr().err

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
