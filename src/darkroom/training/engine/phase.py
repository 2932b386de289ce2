"""One optimisation problem of a training step: gradients over the parts of a batch, then an update."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from darkroom.config.training import Optimization
from darkroom.training.engine.distributed import ALONE, Processes
from darkroom.training.engine.latch import NORM, Latch, Measured, Values, exact
from darkroom.training.engine.optim import learning_rate, make_optimizers


class Loss(Protocol):
    """(step, rows) -> {"loss": what is minimised, other terms for the log}, for rows of the step's global batch."""

    def __call__(self, step: int, rows: slice) -> Mapping[str, Tensor]: ...


@dataclass
class Phase:
    """One optimisation problem of a step; most networks have one, a VAE with a discriminator two.

    name: put before its values' names in the log; empty for the main one.
    network: what its optimisers move, from step `start` on.
    """

    name: str
    network: nn.Module
    config: Optimization
    loss: Loss
    start: int = 0
    optimizers: Sequence[torch.optim.Optimizer] = field(init=False)
    device: torch.device = field(init=False)
    names: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        self.device = next(self.network.parameters()).device
        self.optimizers = make_optimizers(self.config.optimizer, self.network)
        self._rate = torch.zeros((), device=self.device)

    def state_dict(self) -> Mapping[str, Any]:
        """The weights, and what the optimisers remember."""
        for optimizer in self.optimizers:  # as numbers, whatever device reads them
            for group in optimizer.param_groups:
                group["lr"] = float(group["lr"])
        return {"network": self.network.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.network.load_state_dict(state["network"])
        for optimizer, remembered in zip(self.optimizers, state["optimizers"], strict=True):
            capturable = [group.get("capturable") for group in optimizer.param_groups]
            optimizer.load_state_dict(remembered)
            for group, was in zip(optimizer.param_groups, capturable, strict=True):
                if was is not None:
                    group["capturable"] = was

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next update; on CUDA as a tensor, since a captured step holds no numbers."""
        if self.device.type == "cuda":
            self._rate.fill_(rate)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._rate if self.device.type == "cuda" else rate

    def update(
        self,
        place: int,
        terms_of: Callable[[int], Mapping[str, Tensor]],
        shares: Sequence[float],
        processes: Processes,
        latch: Latch,
    ) -> Tensor:
        """One update, unless the latch closes, and the values of `names`; the device is not waited for.

        Args:
            place: of this phase among those of the training.
            terms_of: part -> its loss and other terms.
            shares: of each part in the batch.
        """
        self.network.zero_grad(set_to_none=True)
        dtype, sums = exact(self.device), dict[str, Tensor]()
        for part, share in enumerate(shares):
            terms = terms_of(part)
            (terms["loss"] * share).backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                value = term.detach().to(self.device, dtype) * share
                sums[name] = sums[name] + value if name in sums else value
        processes.sum_gradients(self.network.parameters())
        values = processes.sum_values(torch.stack(list(sums.values())))
        limit = math.inf if self.config.optimizer.clip_norm is None else self.config.optimizer.clip_norm
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        values = torch.cat([values, norm.to(self.device, dtype).view(1)])
        self.names = (*sums, NORM)
        latch.judge(place, self.names, values)
        for optimizer in self.optimizers:
            optimizer.found_inf = latch.closed  # type: ignore[attr-defined]
            optimizer.step()
        return values

    def measured(self, values: Tensor, rate: float) -> Measured:
        """What `update` gave, for the log."""
        return Measured(self.name, self.names, values, rate)

    def run(
        self, step: int, steps: int, parts: Sequence[slice], batch_size: int, processes: Processes = ALONE
    ) -> Values:
        """One step of this phase by itself, from the gradients summed over `parts` of the batch and the processes.

        Raises:
            DarkroomError: a loss or the gradient's norm is not finite; nothing has been updated.
        """
        latch, rate = Latch(self.device), learning_rate(self.config, step, steps)
        latch.begin(step)
        self.set_rate(rate)
        values = self.update(
            0, lambda i: self.loss(step, parts[i]), [shared(p, batch_size) for p in parts], processes, latch
        )
        latch.check(lambda phase, at: rate)
        return Values([self.measured(values, rate)])


def shared(rows: slice, batch_size: int) -> float:
    """The share of `rows` in a batch."""
    return float(rows.stop - rows.start) / batch_size
