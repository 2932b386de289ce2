"""What all tests share: few threads, the peers that results are held against, copies of the project to run."""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

# Here and in all processes that tests start: to compile PyTorch and MLflow anew takes each of them four seconds.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Before PyTorch is imported: threads that are taken away later leave other last bits.
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from darkroom import cli
from darkroom.data.sources.torchvision_import import torchvision
from tests.support.idx import write_idx
from tests.support.loading import load_script
from tests.support.projects import WORKERS, Dvc, copy_project, dvc_of, environment_of, run_darkroom
from tests.support.shared import made_once
from tests.support.stages import finish_small, new_project

torch.set_num_threads(max(1, min(2, torch.get_num_threads()) // WORKERS))  # OMP_NUM_THREADS=1 leaves room for others
SHARING = ("tracking", "remotes")  # folders whose tests share a store that is dear to make
# With what to begin, the longest first, so that the processes end together; paths below tests/.
LONGEST = (
    "tracking",
    "remotes",
    "chaos/test_kills.py",
    "end_to_end",
    "chaos",
    "audit",
    "hostile",
    "training",
    "inference",
)
TESTS = Path(__file__).parent
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # behind a shell's &, and so in all that the tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)


class InTheirFolder(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
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

    def turn(item: pytest.Item) -> int:
        return next((i for i, first in enumerate(LONGEST) if item.path.is_relative_to(TESTS / first)), len(LONGEST))

    items.sort(key=turn)


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
    return load_script


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


@pytest.fixture(scope="session")
def dvc_in() -> Callable[[Path], Dvc]:
    """For a project, what runs dvc in it."""
    return dvc_of


@pytest.fixture(scope="session")
def darkroom_in() -> Callable[[Path], Callable[..., str]]:
    """For a project, what runs darkroom, or a script given first (SCRIPT.py), in it and returns what that prints."""
    return lambda project: partial(run_darkroom, project)


@pytest.fixture(scope="session")
def small_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and tracked project of the small recipe; see `finish_small`. Leave it as it is: others read it too."""
    return made_once(tmp_path_factory, "small pipeline", finish_small) / "darkroom"


def finish_quick(folder: Path) -> None:
    """Make `folder`/darkroom a finished `dvc repro` of scenes-quick."""
    dvc_of(new_project(folder, small=False))("repro")


@pytest.fixture(scope="session")
def quick_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished `dvc repro` of scenes-quick, which takes minutes. Leave it as it is: others read it too."""
    return made_once(tmp_path_factory, "quick pipeline", finish_quick) / "darkroom"


@pytest.fixture(scope="session")
def copied_project() -> Callable[[Path], None]:
    """Copies the project to a folder."""
    return copy_project


@pytest.fixture(scope="session", name="environment_of")
def _environment_of() -> Callable[[Path], dict[str, str]]:
    """For a project, the environment of processes that run its own code."""
    return environment_of
