"""Updates on CUDA: inputs are copied while the device is at work, and updates replayed from a graph."""

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import torch

from darkroom.training.engine.batches import Batch, Batches
from darkroom.training.engine.latch import Measured
from darkroom.training.engine.phase import Phase

Update = Callable[[Sequence[Phase], Batches], list[Measured]]
WARM_UP = 3  # updates of each kind that are made eagerly before one is captured
log = logging.getLogger("darkroom")


class Graphs:
    """An `Update` of batches in pinned memory, which are copied to the device first.

    Args:
        update: takes batches on the device, and waits for nothing.
        capture: replay it from a CUDA graph, whose launches cost the host nothing; else it is only called.
    """

    def __init__(self, update: Update, capture: bool) -> None:
        self._update, self._capture = update, capture
        self._kind: list[list[Hashable]] | None = None
        self._batches: list[list[Batch]] = []  # on the device
        self._eager = 0  # eager updates so far of this kind of batch
        self._side: torch.cuda.Stream | None = None  # the side stream for warm-up and capture
        self._graph: torch.cuda.CUDAGraph | None = None
        self._measured: list[Measured] = []

    def __call__(self, phases: Sequence[Phase], batches: Batches) -> list[Measured]:
        """See `Update`."""
        self._copy(phases, [list(micro_batches) for micro_batches in batches])
        if self._graph is None and self._capture and self._eager >= WARM_UP:
            self._record(phases)
        if self._graph is None:
            self._eager += 1
            return self._aside(phases) if self._capture else self._update(phases, self._batches)
        self._graph.replay()
        return [replace(measured, values=measured.values.clone()) for measured in self._measured]

    def _copy(self, phases: Sequence[Phase], batches: list[list[Batch]]) -> None:
        """Into the tensors that a graph reads; batches of another kind need others, and another graph."""
        kind = [[batch.kind for batch in micro_batches] for micro_batches in batches]
        if kind != self._kind:
            self._graph, self._kind, self._eager = None, kind, 0
            pairs = zip(phases, batches, strict=True)
            self._batches = [
                [batch.empty_on(phase.device) for batch in micro_batches] for phase, micro_batches in pairs
            ]
        for targets, sources in zip(self._batches, batches, strict=True):
            for target, source in zip(targets, sources, strict=True):
                target.fill(source)

    def _aside(self, phases: Sequence[Phase]) -> list[Measured]:
        """An eager update on a stream of its own, as CUDA asks for before a capture."""
        if self._side is None:
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            found = self._update(phases, self._batches)
        torch.cuda.current_stream().wait_stream(self._side)
        for measured in found:
            measured.values.record_stream(torch.cuda.current_stream())
        return found

    def _record(self, phases: Sequence[Phase]) -> None:
        """Capture an update into a graph; capturing does not run it."""
        for phase in phases:
            phase.network.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
                self._measured = self._update(phases, self._batches)
        except RuntimeError as error:
            self._capture = False
            log.warning("a step is not captured (%s); steps are launched one by one", str(error).splitlines()[0])
            torch.cuda.synchronize()
            return
        self._graph = graph
