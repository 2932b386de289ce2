"""What all tests share: few threads, and the peers that results are held against."""

import importlib.util
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from darkroom import cli
from darkroom.core.vision import torchvision
from darkroom.data.sources.torchvision_sets import DATASETS

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, min(2, torch.get_num_threads()) // WORKERS))  # OMP_NUM_THREADS=1 leaves room for others
SHARING = ("chaos", "end_to_end", "tracking")  # folders whose tests share what is dear to make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side, the tests of a file stay together, and those of the folders in SHARING."""
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group(folder if folder in SHARING else str(item.path)))


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
