"""The training loop: every step from its batches to the update. What is done between steps are hooks."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from darkroom.core import device as devices
from darkroom.core.checkpoint import Checkpoints, Stateful
from darkroom.core.progress import Progress
from darkroom.training.engine.batches import Batches, Loss, made_ahead, made_in_turn
from darkroom.training.engine.compiling import compile_networks
from darkroom.training.engine.disk_space import check_disk, state_bytes, tensor_bytes
from darkroom.training.engine.distributed import ALONE, Processes
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.ending import Ending, Hook
from darkroom.training.engine.graphs import Graphs, Update
from darkroom.training.engine.latch import NORM, Latch, Measured, Values, exact
from darkroom.training.engine.phase import Phase
from darkroom.training.engine.sharding import is_sharded

__all__ = ["Hook", "Loop", "Loss", "Phase"]


@dataclass(frozen=True)
class Loop:
    """Minimises the losses of all phases for `steps` steps of `batch_size` samples; `run` does it.

    steps: over which the learning rate runs.
    accumulation: micro-batches of a step, whose gradients are summed.
    hooks: called after every step. They get its values still on the device: reading one synchronises.
    read_every: numbers of steps after whose multiples the values may be read, for the log or before a validation;
        between them the device is not waited for.
    checkpoints: where to resume from, if there is one, and where to save.
    state: what else a checkpoint holds, hooks above all, by name.
    processes: who share the rows. Hooks run in the one that leads, and for the others all ends with `run`; but with
        sharded networks all run hooks, and go on together.
    ending: after which step it ends; hooks learn it from there. None: after `steps`.
    """

    phases: Sequence[Phase]
    ema: EMA[Any]
    _: KW_ONLY
    steps: int
    batch_size: int
    description: str
    accumulation: int = 1
    hooks: Sequence[Hook] = ()
    read_every: Sequence[int] = (1,)
    checkpoints: Checkpoints = field(default_factory=Checkpoints.none)
    state: Mapping[str, Stateful] = field(default_factory=dict)
    processes: Processes = ALONE
    ending: Ending | None = None

    def run(self) -> None:
        """Train from the newest checkpoint, or the beginning, to the end.

        Raises:
            Interrupted: the end was asked for.
            DarkroomError: the disk has no room for what a training writes; or a loss or gradient was not finite at a
                step since the values were last read. No weight, moment or average has been moved from that step on, and
                no checkpoint written.
        """
        processes, checkpoints, ending = self.processes, self.checkpoints, self.ending or Ending(self.steps)
        state = {f"phase {i}": phase for i, phase in enumerate(self.phases)} | {"ema": self.ema, **self.state}
        micro_batches = processes.micro_batches(self.batch_size, self.accumulation)
        if processes.leads and checkpoints.folder is not None:
            bytes_of_outputs = tensor_bytes(self.ema.state_dict())
            check_disk(self.description, state_bytes(state), bytes_of_outputs, checkpoints.folder)
        first = checkpoints.resume(state, ending.step)
        networks = [phase.network for phase in self.phases]
        compile_networks(networks, devices.runtime().compile, self.steps)
        hooks = ending.around(self.hooks if processes.leads or any(map(is_sharded, networks)) else ())
        latch = Latch(self.phases[0].device)
        make_update = self._update(latch, micro_batches)
        with (
            processes.distributed(first, networks),
            Progress(ending.step, self.description, training=True) as bar,
            checkpoints.interruption.deferred(),
            ending.listening() if processes.leads else nullcontext(),
            self._batches(micro_batches, range(first, processes.from_leader(ending.step))) as batches,
        ):
            for phase in self.phases:
                phase.terms = processes.parallel(phase.terms)
            bar.start_at(first)
            step, last_read = first, dict[str, float]()
            while step < (end := processes.from_leader(ending.after(step))):
                bar.total = end
                phases = self._active(step)
                rates = {phase.name: phase.rate(step, self.steps) for phase in phases}
                for phase in phases:
                    phase.set_rate(rates[phase.name])
                self.ema.set_weight((step + 1) * self.batch_size, self.batch_size)
                latch.start(step)
                values = Values(make_update(phases, next(batches)), rates)
                step += 1
                if step == end or any(step % every == 0 for every in self.read_every):
                    latch.check(self._rate)
                    last_read = {"loss": values["loss"]}
                for hook in hooks:
                    hook(step, values)
                bar.update(1, **last_read)
                checkpoints.after(step, state, end, partial(latch.check, self._rate))

    def _active(self, step: int) -> list[Phase]:
        return [phase for phase in self.phases if step >= phase.start]

    def _rate(self, phase: str, step: int) -> float:
        return next(one.rate(step, self.steps) for one in self.phases if one.name == phase)

    def _batches(self, micro_batches: Sequence[slice], steps: range) -> closing[Generator[Batches]]:
        make = made_ahead if on_cuda(self.phases) else made_in_turn
        losses = lambda step: [phase.loss for phase in self._active(step)]  # noqa: E731
        return closing(make(losses, micro_batches, steps, self.phases[0].device))

    def _update(self, latch: Latch, micro_batches: Sequence[slice]) -> Update:
        fractions = [(rows.stop - rows.start) / self.batch_size for rows in micro_batches]
        eager = partial(update, fractions=fractions, ema=self.ema, processes=self.processes, latch=latch)
        capture = devices.runtime().cuda_graphs and self.processes.size == 1
        return Graphs(eager, capture) if on_cuda(self.phases) else eager


def on_cuda(phases: Sequence[Phase]) -> bool:
    """Whether all phases train on CUDA; then batches are made ahead and copied while it computes."""
    return all(phase.device.type == "cuda" for phase in phases)


def update(
    phases: Sequence[Phase],
    batches: Batches,
    *,
    fractions: Sequence[float],
    ema: EMA[Any],
    processes: Processes,
    latch: Latch,
) -> list[Measured]:
    """One update of every phase from its micro-batches, then of the average; the device is not waited for.

    Nothing moves once the latch has closed, as it does at the first value that is not finite.

    Args:
        fractions: of the batch's rows, one for each micro-batch.
    """
    measured = []
    for phase, phase_batches in zip(phases, batches, strict=True):
        phase.network.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, (batch, fraction) in enumerate(zip(phase_batches, fractions, strict=True), 1):
            with processes.reducing(phase.terms, last=number == len(fractions)):
                terms = phase.terms(batch)
                # the mean over processes that follows would count each of them alike, however many rows it has
                (terms["loss"] * (fraction * processes.size)).backward()
            for name, term in terms.items():
                value = term.detach().to(phase.device, exact(phase.device)) * fraction
                sums[name] = sums[name] + value if name in sums else value
        values = processes.sum_values(torch.stack(list(sums.values())))
        values = torch.cat([values, phase.clip_gradient().to(values).view(1)])
        measured.append(Measured(phase.name, (*sums, NORM), values))
        latch.judge(measured[-1])
        phase.move(latch.closed)
    ema.move(latch)
    return measured
