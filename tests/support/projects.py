"""Copies of the project to run, and what runs dvc and darkroom in them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
SETTINGS = (".dvc/config", ".dvcignore", ".gitattributes", ".gitignore")
PARTS = (*SETTINGS, "data/manifests", "dvc.yaml", "recipes", "src", "stages")

UNFINISHED = shutil.ignore_patterns("*.pyc.*")  # bytecode that another process is writing
Dvc = Callable[..., subprocess.CompletedProcess[str]]


def copy_project(target: Path) -> None:
    """The files a clone would have that the pipeline needs, in a git repository of their own."""
    for part in PARTS:
        source = ROOT / part
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=UNFINISHED)  # with the bytecode, which takes a second to make
        else:
            shutil.copy(source, target / part)
    for name in ("init", "add .", "-c user.name=test -c user.email=test@example.org commit -m start"):
        subprocess.run(["git", *name.split()], cwd=target, check=True, capture_output=True)


def environment_of(project: Path) -> dict[str, str]:
    """Of a process that runs the project's own code, and finds its data, models and runs in the project alone."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "MLFLOW_", "DVC_"))}
    threads = {"DARKROOM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # other numbers of threads give other last bits
    return {**kept, **threads, "PATH": path, "PYTHONPATH": str(project / "src")}


def dvc_of(project: Path) -> Dvc:
    """Runs dvc in `project` with the project's own code; its first argument is split at spaces."""

    def dvc(command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command.split()],
            cwd=project,
            env=environment_of(project),
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done

    return dvc


def run_darkroom(project: Path, *arguments: str) -> str:
    """Run darkroom, or a script given first (SCRIPT.py), in `project` and return what it prints."""
    program = [] if arguments[0].endswith(".py") else ["-c", "from darkroom.cli import main; main()"]
    done = subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=project,
        env=environment_of(project),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
