"""The average of the weights: its memory is in samples, whatever the batch."""

from typing import Any

import pytest
import torch
from torch import nn

from darkroom.training.engine.ema import EMA, WARMUP_RATIO

MANY = 10**9  # samples seen: the warm-up is over


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.frozen = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1), requires_grad=False)
        self.register_buffer("count", torch.zeros(1))


def averaged(half_life: float, samples: int, batch_size: int, seen: int = MANY) -> float:
    """What is left of 1 - average after `samples` samples at weight 1."""
    network = Scalar()
    ema = EMA(network, half_life)
    network.weight.data.fill_(1)
    for done in range(0, samples, batch_size):
        ema.update(seen + done, batch_size)
    return 1 - float(ema.network.weight.detach())


@pytest.mark.parametrize("batch_size", [1, 10, 50, 100])
def test_half_of_the_past_is_left_after_a_half_life(batch_size: int) -> None:
    assert averaged(100, 100, batch_size) == pytest.approx(0.5, abs=1e-5)
    assert averaged(100, 300, batch_size) == pytest.approx(0.125, abs=1e-5)


def test_at_first_the_memory_is_a_share_of_the_samples_seen() -> None:
    assert averaged(1e6, 64, 64, seen=6400) == pytest.approx(0.5 ** (64 / (WARMUP_RATIO * 6400)), abs=1e-5)


def test_the_average_is_a_network_apart_ready_for_use() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    ema = EMA(network, 100)
    assert not ema.network.training
    assert not any(p.requires_grad for p in ema.network.parameters())
    assert network.training
    first: Any = network[0]
    first.weight.data.fill_(7)
    average: Any = ema.network
    assert not (average[0].weight == 7).any()


def test_buffers_are_copied_and_frozen_weights_kept() -> None:
    network: Any = Scalar()
    ema: Any = EMA(network, 100)
    network.count.fill_(5)
    network.frozen.data.fill_(5)
    ema.update(MANY, 10)
    assert float(ema.network.count) == 5
    assert float(ema.network.frozen.detach()) == 0
