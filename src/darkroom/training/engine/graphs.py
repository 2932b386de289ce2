"""Updates on CUDA: inputs are copied while the device is at work, and updates replayed from a graph."""

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import torch

from darkroom.training.engine.batches import Batch, Batches
from darkroom.training.engine.latch import Measured
from darkroom.training.engine.phase import Phase

Update = Callable[[Sequence[Phase], Batches], list[Measured]]
WARM_UP = 3  # updates of each kind that are made eagerly before one is captured
MOST_KINDS = 64  # whose graphs are kept, each with the memory of its update
log = logging.getLogger("darkroom")


@dataclass
class _Kind:
    """Updates of one kind of batches.

    batches: those on the device, which a graph reads. eager: updates so far that were not replayed.
    """

    batches: list[list[Batch]]
    eager: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    measured: list[Measured] = field(default_factory=list)


class Graphs:
    """An `Update` of batches in pinned memory, which are copied to the device first.

    Batches of another kind (another size, or other operations) have tensors and a graph of their own.

    Args:
        update: takes batches on the device, and waits for nothing.
        capture: replay it from a CUDA graph, whose launches cost the host nothing; else it is only called.
    """

    def __init__(self, update: Update, capture: bool) -> None:
        self._update, self._capture = update, capture
        self._kinds: dict[Hashable, _Kind] = {}
        self._side: torch.cuda.Stream | None = None  # the side stream for warm-up and capture

    def __call__(self, phases: Sequence[Phase], batches: Batches) -> list[Measured]:
        """See `Update`."""
        now = self._copy(phases, [list(micro_batches) for micro_batches in batches])
        if now.graph is None and self._capture and now.eager >= WARM_UP:
            self._record(phases, now)
        if now.graph is None:
            now.eager += 1
            return self._aside(phases, now) if self._capture else self._update(phases, now.batches)
        now.graph.replay()
        return [replace(measured, values=measured.values.clone()) for measured in now.measured]

    def _copy(self, phases: Sequence[Phase], batches: list[list[Batch]]) -> _Kind:
        """Into the tensors that the graph of this kind reads."""
        kind = tuple(tuple(batch.kind for batch in micro_batches) for micro_batches in batches)
        if kind not in self._kinds:
            while len(self._kinds) >= MOST_KINDS:  # the one that was there first is hardly the one to come
                self._kinds.pop(next(iter(self._kinds)))
            pairs = zip(phases, batches, strict=True)
            self._kinds[kind] = _Kind(
                [[batch.empty_on(phase.device) for batch in micro_batches] for phase, micro_batches in pairs]
            )
        now = self._kinds[kind]
        for targets, sources in zip(now.batches, batches, strict=True):
            for target, source in zip(targets, sources, strict=True):
                target.fill(source)
        return now

    def _aside(self, phases: Sequence[Phase], now: _Kind) -> list[Measured]:
        """An eager update on a stream of its own, as CUDA asks for before a capture."""
        if self._side is None:
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            found = self._update(phases, now.batches)
        torch.cuda.current_stream().wait_stream(self._side)
        for measured in found:
            measured.values.record_stream(torch.cuda.current_stream())
        return found

    def _record(self, phases: Sequence[Phase], now: _Kind) -> None:
        """Capture an update into a graph; capturing does not run it."""
        for phase in phases:
            phase.network.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
                now.measured = self._update(phases, now.batches)
        except RuntimeError as error:
            self._capture = False
            log.warning("a step is not captured (%s); steps are launched one by one", str(error).splitlines()[0])
            torch.cuda.synchronize()
            return
        now.graph = graph
