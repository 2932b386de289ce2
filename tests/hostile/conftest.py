"""What the tests of hostile data share."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def corpus(load: Callable[[Path], ModuleType]) -> ModuleType:
    """corpus.py beside this file."""
    return load(Path(__file__).with_name("corpus.py"))


@pytest.fixture(scope="session")
def trial(load: Callable[[Path], ModuleType]) -> ModuleType:
    """trial.py beside this file."""
    return load(Path(__file__).with_name("trial.py"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data set "set" below the data root of this machine."""
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path / "root"))
    path = tmp_path / "root" / "set"
    path.mkdir(parents=True)
    return path
