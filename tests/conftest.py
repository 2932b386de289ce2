"""What all tests share: few threads, and the peers that results are held against."""

from typing import Any

import pytest
import torch

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
