"""The whole pipeline, once: a copy of the project in which `dvc repro` has made the scenes-quick recipe."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PARTS = (".dvc/config", ".dvcignore", ".gitignore", "data/manifests", "dvc.yaml", "recipes", "src", "stages")

Dvc = Callable[..., "subprocess.CompletedProcess[str]"]


def copy_project(target: Path) -> None:
    """The files a clone would have that the pipeline needs, in a git repository of their own."""
    for part in PARTS:
        source = PROJECT / part
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / part)
    for name in ("init", "add .", "-c user.name=test -c user.email=test@example.org commit -m start"):
        subprocess.run(["git", *name.split()], cwd=target, check=True, capture_output=True)


def _environment(project: Path) -> dict[str, str]:
    """Of a process that runs the project's own code, and finds its data, models and runs in the project alone."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "MLFLOW_", "DVC_"))}
    return {**kept, "PATH": path, "PYTHONPATH": str(project / "src")}


def _dvc_in(project: Path) -> Dvc:
    """Runs dvc in `project` with the project's own code; its first argument is split at spaces."""

    def dvc(command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command.split()],
            cwd=project,
            env=_environment(project),
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done

    return dvc


@pytest.fixture(scope="session")
def dvc_in() -> Callable[[Path], Dvc]:
    """For a project, what runs dvc in it."""
    return _dvc_in


@pytest.fixture(scope="session")
def darkroom_in() -> Callable[[Path], Callable[..., None]]:
    """For a project, what runs darkroom in it; an argument that ends in .py is a script to be run instead."""

    def darkroom(project: Path, *arguments: str) -> None:
        program = [] if arguments[0].endswith(".py") else ["-c", "from darkroom.cli import main; main()"]
        done = subprocess.run(
            [sys.executable, *program, *arguments],
            cwd=project,
            env=_environment(project),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return lambda project: partial(darkroom, project)


@pytest.fixture(scope="session")
def quick_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished `dvc repro` of scenes-quick. Leave it as it is: other tests read it too."""
    project = tmp_path_factory.mktemp("clone") / "darkroom"
    project.mkdir()
    copy_project(project)
    shutil.copy(project / "recipes" / "scenes-quick.yaml", project / "params.yaml")
    _dvc_in(project)("repro")
    return project


@pytest.fixture(scope="session")
def copied_project() -> Callable[[Path], None]:
    """Copies the project to a folder."""
    return copy_project
