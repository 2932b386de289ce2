"""One optimisation problem of a training: a network, its loss and what moves it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.config.training import Optimization
from darkroom.training.engine.batches import Loss
from darkroom.training.engine.distributed import Terms
from darkroom.training.engine.optim import learning_rate, make_optimizers
from darkroom.training.engine.sharding import local, unsharded


@dataclass
class Phase:
    """One optimisation problem of a step; most networks have one, a VAE with a discriminator two.

    name: put before its values' names in the log; empty for the main one, and no two of a training are the same.
    network: what its optimisers move, from step `start` on.
    terms: the loss of a batch, as several processes may have wrapped it.
    """

    name: str
    network: nn.Module
    config: Optimization
    loss: Loss
    start: int = 0
    optimizers: list[torch.optim.Optimizer] = field(init=False)
    device: torch.device = field(init=False)
    terms: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.device = next(self.network.parameters()).device
        self.optimizers = make_optimizers(self.config.optimizer, self.network)
        self._rate = torch.zeros((), device=self.device)
        self.terms = Terms(self.network, self.loss.compute)

    def state_dict(self) -> Mapping[str, Any]:
        """The weights, and the optimisers' state."""
        for optimizer in self.optimizers:  # as numbers, whatever device reads them
            for group in optimizer.param_groups:
                group["lr"] = float(group["lr"])
        return {"network": self.network.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict`."""
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            capturable = [group.get("capturable") for group in optimizer.param_groups]
            optimizer.load_state_dict(saved)
            _lay_out(optimizer)
            for group, was in zip(optimizer.param_groups, capturable, strict=True):
                if was is not None:
                    group["capturable"] = was

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step `step` of `steps`."""
        return learning_rate(self.config, step, steps)

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next update; on CUDA as a tensor, since a captured step holds no numbers."""
        if self.device.type == "cuda":
            self._rate.fill_(rate)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._rate if self.device.type == "cuda" else rate

    def clip_gradient(self) -> Tensor:
        """Shorten the gradient to the largest norm that is allowed; its norm () before."""
        limit = math.inf if self.config.optimizer.clip_norm is None else self.config.optimizer.clip_norm
        return unsharded(nn.utils.clip_grad_norm_(self.network.parameters(), limit))

    def move(self, found_inf: Tensor) -> None:
        """Move the weights by their gradients, unless `found_inf` () is 1."""
        for optimizer in self.optimizers:
            optimizer.found_inf = found_inf  # type: ignore[attr-defined]
            optimizer.step()


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Moments in the order in memory that their weights have, for fused kernels look at nothing else.

    What was saved by another strategy may have another one.
    """
    for parameter, state in optimizer.state.items():
        for name, moment in state.items():
            if moment.ndim and local(moment).stride() != local(parameter).stride():
                state[name] = torch.empty_like(parameter).copy_(moment)
