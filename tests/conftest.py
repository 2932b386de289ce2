"""What all tests share: few threads, the peers that results are held against, copies of the project to run."""

import importlib.util
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

# Before PyTorch is imported: threads that are taken away later leave other last bits.
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from darkroom import cli
from darkroom.config.merging import complete_text
from darkroom.data.sources.torchvision_import import torchvision
from darkroom.data.sources.torchvision_sets import DATASETS

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, min(2, torch.get_num_threads()) // WORKERS))  # OMP_NUM_THREADS=1 leaves room for others
LONGEST = ("end_to_end", "chaos")  # folders with which to begin
SHARING = (*LONGEST, "tracking")  # whose tests share what is dear to make
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # behind a shell's &, and so in all that the tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)


class InTheirFolder(LoadScopeScheduling):
    """Side by side, the tests of a file stay together, and those of the folders in SHARING.

    The marks that pytest-xdist has for this do nothing with pytest 9.2 (pytest-xdist, issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        return file.parent.name if file.parent.name in SHARING else str(file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> InTheirFolder:
    """What gives tests to the processes."""
    return InTheirFolder(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The LONGEST come first."""
    items.sort(key=lambda item: [folder != item.path.parent.name for folder in LONGEST])


PROJECT = Path(__file__).parents[1]
SETTINGS = (".dvc/config", ".dvcignore", ".gitattributes", ".gitignore")
PARTS = (*SETTINGS, "data/manifests", "dvc.yaml", "recipes", "src", "stages")

Dvc = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def diffusers() -> Any:
    """The package, or a skip. It looks for torchvision, which must come through its one door first."""
    torchvision("datasets")
    return pytest.importorskip("diffusers", reason="parity with diffusers needs the test extras")


@pytest.fixture(scope="session")
def transformers() -> Any:
    """The package, or a skip; see `diffusers`."""
    torchvision("datasets")
    return pytest.importorskip("transformers", reason="parity with transformers needs the test extras")


@pytest.fixture(scope="session")
def load() -> Callable[[Path], ModuleType]:
    """Loads a file that is part of no package."""

    def module(path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made

    return module


@pytest.fixture(scope="session")
def parts(load: Callable[[Path], ModuleType]) -> ModuleType:
    """tests/inference/parts.py: makers of tiny artifacts."""
    return load(Path(__file__).with_name("inference") / "parts.py")


def write_idx(root: Path, name: str = "MNIST", train: int = 60, test: int = 8) -> dict[str, np.ndarray]:
    """The files of MNIST or Fashion-MNIST with noise for pictures, which are returned; picture i has label i % 10."""
    images = {}
    for split, (pictures, labels) in DATASETS[name].files.items():
        count = train if split == "train" else test
        images[split] = np.random.default_rng(len(split)).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (root / pictures).parent.mkdir(parents=True, exist_ok=True)
        (root / pictures).write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + images[split].tobytes())
        (root / labels).write_bytes(struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count)))
    return images


@pytest.fixture(scope="session", name="write_idx")
def _write_idx() -> Callable[..., dict[str, np.ndarray]]:
    return write_idx


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """darkroom ARGUMENTS -> its exit status."""

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["darkroom", *arguments])
        try:
            cli.main()
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    return call


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


def environment_of(project: Path) -> dict[str, str]:
    """Of a process that runs the project's own code, and finds its data, models and runs in the project alone."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "MLFLOW_", "DVC_"))}
    threads = {"DARKROOM_THREADS": "1", "OMP_NUM_THREADS": "1"} if WORKERS > 1 else {}  # more would wait for each other
    return {**kept, **threads, "PATH": path, "PYTHONPATH": str(project / "src")}


def _dvc_in(project: Path) -> Dvc:
    """Runs dvc in `project` with the project's own code; its first argument is split at spaces."""

    def dvc(command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
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


@pytest.fixture(scope="session")
def dvc_in() -> Callable[[Path], Dvc]:
    """For a project, what runs dvc in it."""
    return _dvc_in


@pytest.fixture(scope="session")
def darkroom_in() -> Callable[[Path], Callable[..., str]]:
    """For a project, what runs darkroom, or a script given first (SCRIPT.py), in it and returns what that prints."""

    def darkroom(project: Path, *arguments: str) -> str:
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

    return lambda project: partial(darkroom, project)


@pytest.fixture(scope="session")
def quick_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished `dvc repro` of scenes-quick. Leave it as it is: other tests read it too."""
    project = tmp_path_factory.mktemp("clone") / "darkroom"
    project.mkdir()
    copy_project(project)
    (project / "params.yaml").write_text(complete_text(project / "recipes" / "scenes-quick.yaml"))
    _dvc_in(project)("repro")
    return project


@pytest.fixture(scope="session")
def copied_project() -> Callable[[Path], None]:
    """Copies the project to a folder."""
    return copy_project


@pytest.fixture(scope="session", name="environment_of")
def _environment_of() -> Callable[[Path], dict[str, str]]:
    """For a project, the environment of processes that run its own code."""
    return environment_of
