"""Step after step of a training, without a wait between them; on CUDA replayed from a graph where that can be."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from darkroom.training.engine.batches import Batch, Feeder, PreparedLoss, feeder
from darkroom.training.engine.distributed import Processes
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.latch import Latch, Values
from darkroom.training.engine.optim import learning_rate
from darkroom.training.engine.phase import Phase, shared

WARM_UP = 3  # steps of each kind that are made eagerly before one is captured
log = logging.getLogger("darkroom")


def makes_ahead(phases: Sequence[Phase]) -> bool:
    """Whether inputs are made ahead and copied: on CUDA, where they are made apart from the rest of the loss."""
    return all(phase.device.type == "cuda" and isinstance(phase.loss, PreparedLoss) for phase in phases)


class Steps:
    """Makes the steps of a training: an update of every phase that has started, then of the average.

    Args:
        steps: over which the learning rate runs.
        parts: the rows of this process, in parts whose gradients are summed.
        latch: closes at the first value that is not finite.
        capture: replay steps from a CUDA graph, whose launches cost the host nothing; needs one process, and losses
            whose inputs are made apart.
    """

    def __init__(
        self,
        phases: Sequence[Phase],
        ema: EMA[Any],
        steps: int,
        parts: Sequence[slice],
        batch_size: int,
        processes: Processes,
        latch: Latch,
        capture: bool,
    ) -> None:
        self.phases, self.ema, self.steps, self.batch_size = phases, ema, steps, batch_size
        self.parts, self.processes, self.latch = parts, processes, latch
        self._shares = [shared(part, batch_size) for part in parts]
        self._ahead = makes_ahead(phases)
        self._capture = capture and self._ahead and processes.size == 1
        self._feeder: Feeder | None = None
        self._kind: Any = None
        self._room: list[list[Batch]] = []
        self._eager = 0  # steps of this kind that were made so
        self._side: torch.cuda.Stream | None = None  # where steps are made before a capture, and captured
        self._graph: torch.cuda.CUDAGraph | None = None
        self._values: list[Tensor] = []

    @contextmanager
    def begun(self) -> Iterator["Steps"]:
        """Steps are made in this block."""
        device = self.phases[0].device
        with feeder(self._inputs, self._waits, device) if self._ahead else nullcontext() as self._feeder:
            yield self

    def make(self, step: int, end: int) -> Values:
        """Step `step` of a training that ends before step `end`."""
        active = [(place, phase) for place, phase in enumerate(self.phases) if step >= phase.start]
        rates = [learning_rate(phase.config, step, self.steps) for _, phase in active]
        self.latch.begin(step)
        for (_, phase), rate in zip(active, rates, strict=True):
            phase.set_rate(rate)
        self.ema.set_weight((step + 1) * self.batch_size, self.batch_size)
        if self._feeder is None:
            found = self._work(active, None, step)
        else:
            found = self._replayed(active, self._feeder.get(step, end), step)
        return Values([p.measured(x, rate) for (_, p), x, rate in zip(active, found, rates, strict=True)])

    def check(self) -> None:
        """Wait for the device.

        Raises:
            DarkroomError: a value was not finite; nothing has been updated since.
        """
        self.latch.check(lambda place, step: learning_rate(self.phases[place].config, step, self.steps))

    def _inputs(self, step: int) -> list[list[Batch]]:
        """By phase and part, in pinned memory."""
        return [
            [phase.loss.inputs(step, rows).pinned() for rows in self.parts]
            for phase in self.phases
            if step >= phase.start and isinstance(phase.loss, PreparedLoss)
        ]

    def _waits(self, step: int) -> bool:
        return any(isinstance(phase.loss, PreparedLoss) and phase.loss.waits(step) for phase in self.phases)

    def _work(
        self, active: Sequence[tuple[int, Phase]], batches: Sequence[Sequence[Batch]] | None, step: int = -1
    ) -> list[Tensor]:
        """The values of each phase's update."""
        found = []
        for i, (place, phase) in enumerate(active):

            def terms(part: int, phase: Phase = phase, i: int = i) -> Mapping[str, Tensor]:
                if batches is not None and isinstance(phase.loss, PreparedLoss):
                    return phase.loss.compute(batches[i][part])
                return phase.loss(step, self.parts[part])

            found.append(phase.update(place, terms, self._shares, self.processes, self.latch))
        self.ema.move(self.latch)
        return found

    def _replayed(self, active: Sequence[tuple[int, Phase]], batches: list[list[Batch]], step: int) -> list[Tensor]:
        kind = [[batch.kind for batch in parts] for parts in batches]
        if kind != self._kind:
            self._graph, self._kind, self._eager = None, kind, 0
            pairs = zip(active, batches, strict=True)
            self._room = [[batch.room(phase.device) for batch in parts] for (_, phase), parts in pairs]
        for places, parts in zip(self._room, batches, strict=True):
            for place, batch in zip(places, parts, strict=True):
                place.fill(batch)
        if self._graph is None and self._capture and self._eager >= WARM_UP:
            self._record(active, step)
        if self._graph is None:
            self._eager += 1
            return self._aside(active) if self._capture else self._work(active, self._room)
        self._graph.replay()
        return [values.clone() for values in self._values]

    def _aside(self, active: Sequence[tuple[int, Phase]]) -> list[Tensor]:
        """An eager step on a stream of its own, as CUDA asks for before a capture."""
        if self._side is None:
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            found = self._work(active, self._room)
        torch.cuda.current_stream().wait_stream(self._side)
        for values in found:
            values.record_stream(torch.cuda.current_stream())
        return found

    def _record(self, active: Sequence[tuple[int, Phase]], step: int) -> None:
        """Capture a step, which is not made by that."""
        for _, phase in active:
            phase.network.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
                self._values = self._work(active, self._room)
        except RuntimeError as error:
            self._capture = False
            log.warning("step %d: not captured (%s); steps are launched one by one", step, str(error).splitlines()[0])
            torch.cuda.synchronize()
            return
        self._graph = graph
