"""Small worlds to train in: a few latents, a few captions, networks built in milliseconds."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from darkroom.config.params import Optimizer
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.optim import OptimizerConfig
from tests.support.worlds import World, flat, randomise


@pytest.fixture
def optimizer() -> Callable[..., OptimizerConfig]:
    """AdamW at a constant rate; name what differs."""

    def make(**changes: object) -> OptimizerConfig:
        usual = {
            "optimizer": "adamw",
            "learning_rate": 1e-2,
            "betas": [0.9, 0.99],
            "weight_decay": 0.0,
            "warmup_steps": 0,
        }
        return Optimizer.model_validate(
            {**usual, "lr_schedule": "constant", "lr_decay": None, "clip_norm": None, **changes}
        )

    return make


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
