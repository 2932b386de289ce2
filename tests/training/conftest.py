"""Small worlds to train in: a few latents, a few captions, networks built in milliseconds."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from darkroom.config.training import Optimization
from darkroom.training.engine.context import TrainingContext
from tests.support.settings import optimization
from tests.support.worlds import World, flat, randomise


@pytest.fixture
def optimizer() -> Callable[..., Optimization]:
    """AdamW at a constant rate; name what differs."""
    return optimization


@pytest.fixture
def context() -> TrainingContext:
    return TrainingContext(batch_size=8, seed=0, precision="fp32", device=torch.device("cpu"))


@pytest.fixture(name="randomise")
def _randomise() -> Callable[[nn.Module], None]:
    return randomise


@pytest.fixture
def world(context: TrainingContext) -> Callable[[str], World]:
    return lambda kind: World(kind, context)


@pytest.fixture(name="flat")
def _flat() -> Callable[[nn.Module], Tensor]:
    return flat
