"""Tiny pipelines, made once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from darkroom.inference.packed_unet import PackedUNet
from darkroom.inference.pipeline import Pipeline
from tests.support import pipelines


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pipeline]:
    """A pipeline of random networks, by the arguments of `pipelines.assembled`."""
    made: dict[str, Pipeline] = {}

    def pipeline(**how: Any) -> Pipeline:
        if str(how) not in made:
            path = pipelines.assembled(tmp_path_factory.mktemp("pipeline"), **how)
            made[str(how)] = Pipeline.from_pretrained(path, device="cpu")
        return made[str(how)]

    return pipeline


@pytest.fixture(scope="session")
def apart() -> Callable[[torch.Tensor, torch.Tensor], int]:
    """The largest difference between two pictures, in grey levels."""
    return lambda a, b: int((a.int() - b.int()).abs().max())


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes with which the U-Net is called."""
    sizes: list[int] = []
    call = PackedUNet.forward

    def counting(self: PackedUNet, sample: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        sizes.append(len(sample))
        return call(self, sample, *args, **kwargs)

    monkeypatch.setattr(PackedUNet, "forward", counting)
    return sizes
