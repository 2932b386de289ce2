"""Exponential moving average of weights, its memory measured in samples rather than steps."""

import copy
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from darkroom.training.engine.latch import Latch
from darkroom.training.engine.sharding import local

Network = TypeVar("Network", bound=nn.Module)
WARMUP_RATIO = 0.05  # the average remembers at most this share of the samples seen so far (Karras et al. 2022, config)


class EMA(Generic[Network]):
    """A copy of a network whose weights follow the trained ones.

    Args:
        network: what is trained.
        half_life: samples after which a weight's share in the average has halved. During the first samples it is
            shortened to WARMUP_RATIO times the samples seen, so that the average does not cling to the initialisation.
        average: the copy, where `network` is sharded: one that is sharded alike.
    """

    def __init__(self, network: Network, half_life: float, average: Network | None = None) -> None:
        self.half_life = half_life
        self.network: Network = (copy.deepcopy(network) if average is None else average).eval().requires_grad_(False)
        self._pairs = [
            (local(average), local(value))
            for average, value in zip(self.network.parameters(), network.parameters(), strict=True)
            if value.requires_grad
        ]
        self._buffers = list(zip(self.network.buffers(), network.buffers(), strict=True))
        self._weight = torch.zeros((), device=next(network.parameters()).device)

    def update(self, samples_seen: int, batch_size: int) -> None:
        """Move towards the current weights after a step over `batch_size` samples, `samples_seen` in all."""
        self.set_weight(samples_seen, batch_size)
        self.move()

    def set_weight(self, samples_seen: int, batch_size: int) -> None:
        """How far `move` will go, as a number on the device: a captured step holds no others."""
        half_life = max(min(self.half_life, samples_seen * WARMUP_RATIO), 1e-8)
        self._weight.fill_(1 - 0.5 ** (batch_size / half_life))

    @torch.no_grad()
    def move(self, latch: Latch | None = None) -> None:
        """Move towards the current weights, unless the latch has closed."""
        weight = self._weight if latch is None else self._weight * (1 - latch.closed)
        averages: list[Tensor] = [average for average, _ in self._pairs]
        torch._foreach_lerp_(averages, [value for _, value in self._pairs], [weight] * len(averages))
        for average, value in self._buffers:
            average.copy_(value if latch is None else torch.where(latch.closed > 0, average, value))

    def state_dict(self) -> Mapping[str, Any]:
        """The averaged weights."""
        return self.network.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict`."""
        self.network.load_state_dict(state)
