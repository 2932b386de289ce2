"""The training loop: the algorithm, and nothing else. Logging, validation and samples are hooks."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from darkroom.core.checkpoint import Checkpoints, Stateful
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import Progress
from darkroom.training.distributed import ALONE, Processes
from darkroom.training.ema import EMA
from darkroom.training.ending import Ending
from darkroom.training.optim import OptimizerConfig, learning_rate, make_optimizers


class Loss(Protocol):
    """(step, rows) -> {"loss": what is minimised, other terms for the log}, for rows of the step's global batch."""

    def __call__(self, step: int, rows: slice) -> Mapping[str, Tensor]: ...


Hook = Callable[[int, Mapping[str, float]], None]  # (steps done, the values of the last one)


@dataclass
class Phase:
    """One optimisation problem of a step; most networks have one, a VAE with a discriminator two.

    name: put before its values' names in the log; empty for the main one.
    network: what its optimisers move, from step `start` on.
    """

    name: str
    network: nn.Module
    config: OptimizerConfig
    loss: Loss
    start: int = 0
    optimizers: Sequence[torch.optim.Optimizer] = field(init=False)

    def __post_init__(self) -> None:
        self.optimizers = make_optimizers(self.config, self.network)

    def state_dict(self) -> Mapping[str, Any]:
        """The weights, and what the optimisers remember."""
        return {"network": self.network.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.network.load_state_dict(state["network"])
        for optimizer, remembered in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(remembered)

    def run(
        self, step: int, steps: int, parts: Sequence[slice], batch_size: int, processes: Processes = ALONE
    ) -> dict[str, float]:
        """One update from the gradients summed over `parts` of the batch, and over the processes.

        Raises:
            DarkroomError: a loss or the gradient's norm is not finite; nothing has been updated.
        """
        rate = learning_rate(self.config, step, steps)
        self.network.zero_grad(set_to_none=True)
        values: dict[str, float] = {}
        for rows in parts:
            share = (rows.stop - rows.start) / batch_size
            terms = self.loss(step, rows)
            (terms["loss"] * share).backward()
            for name, term in terms.items():
                values[name] = values.get(name, 0.0) + float(term.detach()) * share
        processes.sum_gradients(self.network.parameters())
        values = processes.sum_values(values)
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        for name, value in [*sorted(values.items(), key=lambda item: item[0] == "loss"), ("gradient norm", norm)]:
            if not math.isfinite(value):
                raise DarkroomError(
                    f"step {step}: {name} is {value} at learning rate {rate:g}; stopped before the update: "
                    "lower the learning rate, or use precision fp32"
                )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        values |= {"gradient_norm": norm, "learning_rate": rate}
        return {f"{self.name}_{name}" if self.name else name: value for name, value in values.items()}


def train(
    phases: Sequence[Phase],
    ema: EMA[Any],
    *,
    steps: int,
    batch_size: int,
    accumulation: int,
    hooks: Sequence[Hook],
    description: str,
    checkpoints: Checkpoints | None = None,
    remembered: Mapping[str, Stateful] | None = None,
    processes: Processes = ALONE,
    ending: Ending | None = None,
) -> None:
    """Minimise the losses of all phases for `steps` steps of `batch_size` samples, in `accumulation` parts each.

    Args:
        steps: over which the learning rate runs.
        checkpoints: where to go on from, if there is one, and where to save. None: nowhere.
        remembered: what else has a memory, hooks above all, by name.
        processes: who share the rows. Hooks run in the one that leads; for the others all ends here.
        ending: after which step it ends; hooks learn it from there. None: after `steps`.

    Raises:
        Interrupted: the end was asked for.
    """
    state: dict[str, Stateful] = {f"phase {i}": phase for i, phase in enumerate(phases)} | {"ema": ema}
    state |= remembered or {}
    checkpoints = checkpoints or Checkpoints.none()
    parts = processes.parts(batch_size, accumulation)
    ending = ending or Ending(steps)
    first = checkpoints.resume(state, ending.step)
    together = processes.together(first, [phase.network for phase in phases])
    hooks = ending.around(hooks if processes.leads else ())
    with (
        together as meeting,
        Progress(ending.step, description, training=True) as bar,
        checkpoints.interruption.deferred(),
        ending.watched(processes.leads, meeting),
    ):
        bar.start_at(first)
        step = first
        while step < (end := ending.after(step)):
            bar.total = end
            values: dict[str, float] = {}
            for phase in phases:
                if step >= phase.start:
                    values |= phase.run(step, steps, parts, batch_size, processes)
            ema.update((step + 1) * batch_size, batch_size)
            step += 1
            for hook in hooks:
                hook(step, values)
            bar.update(1, loss=values["loss"])
            checkpoints.after(step, state, end)
