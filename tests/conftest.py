"""What all tests share: few threads, and the peers that results are held against."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from darkroom import cli
from darkroom.core.vision import torchvision

torch.set_num_threads(min(2, torch.get_num_threads()))  # OMP_NUM_THREADS=1 leaves room for others


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
