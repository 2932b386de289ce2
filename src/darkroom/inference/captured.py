"""A denoising network on CUDA whose calls are recorded once for each shape, and then replayed as one launch.

A small batch takes a GPU less time than it takes the processor to launch the thousand programs of a call. A CUDA graph
holds them all, with the addresses they read and write: inputs are copied to where the graph reads them.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from darkroom.config.base import Precision
from darkroom.core.device import autocast
from darkroom.nn.denoiser.base import DenoisingNetwork
from darkroom.nn.layers.attention import KeysValues

log = logging.getLogger("darkroom")

WARM_UP = 2  # calls of a shape that are carried out as they come, and let libraries choose their programs
KEPT = 4  # shapes whose recordings are kept, each with the memory of its intermediate results

Context = Sequence[KeysValues]
Run = Callable[[], Tensor]
Shapes = tuple[tuple[int, ...], ...]


class CapturedNetwork:
    """(x, t, context, class_ids) -> what `network` answers in `precision`, the same as without recordings.

    Other devices than CUDA have none. Where a call cannot be recorded it says so once and goes on without. Contexts
    must not change in place between calls. Several threads may call it.
    """

    def __init__(self, network: DenoisingNetwork, device: torch.device, precision: Precision) -> None:
        self.network, self.precision = network, precision
        self._lock = threading.Lock()
        self._recordings: OrderedDict[Shapes, _Recording] = OrderedDict()
        self._met: OrderedDict[Shapes, int] = OrderedDict()
        self._recorder = Recorder(device) if device.type == "cuda" else None

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, context: Context | None, class_ids: Tensor | None) -> Tensor:
        with self._lock:
            recording = self._recording(x, t, context, class_ids)
            if recording is not None:
                return recording.replay(x, t, context, class_ids)
        return self._answer(x, t, context, class_ids)

    def _answer(self, x: Tensor, t: Tensor, context: Context | None, class_ids: Tensor | None) -> Tensor:
        with autocast(x.device, self.precision):
            output: Tensor = self.network(x, t, None if context is None else list(context), class_ids)
        return output

    def _recording(
        self, x: Tensor, t: Tensor, context: Context | None, class_ids: Tensor | None
    ) -> "_Recording | None":
        """That of calls of this shape, from the third on."""
        if self._recorder is None:
            return None
        shapes = _shapes(x, context, class_ids)
        found = self._recordings.get(shapes)
        if found is not None:
            self._recordings.move_to_end(shapes)
            return found
        self._met[shapes] = self._met.pop(shapes, 0) + 1
        if len(self._met) > 4 * KEPT:
            self._met.popitem(last=False)
        if self._met[shapes] <= WARM_UP:
            return None
        while len(self._recordings) >= KEPT:
            self._recordings.popitem(last=False)
        try:
            found = _Recording(self._answer, self._recorder, x, t, context, class_ids)
        except RuntimeError as error:  # out of memory too
            self._recorder = None
            reason = " ".join(str(error).split())[:200]
            log.warning("drawing without CUDA graphs, which is slower for small batches: %s", reason)
            return None
        self._recordings[shapes] = found
        return found


class Recorder:
    """Records what a function launches; all recordings share the memory of their intermediate results.

    They may, for their inputs lie outside it and what comes out is copied before another one is replayed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def record(self, run: Run) -> tuple[Callable[[], None], Tensor]:
        """What replays `run`, and where its result lies after that.

        Raises:
            RuntimeError: it cannot be recorded.
        """
        with torch.cuda.device(self._device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                run()  # so that what libraries set up for each stream is there
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=side, capture_error_mode="thread_local"):
                output = run()
        return graph.replay, output


@dataclass
class _Inputs:
    x: Tensor
    t: Tensor
    context: list[KeysValues] | None
    class_ids: Tensor | None


class _Recording:
    """A recorded call of one shape."""

    def __init__(
        self,
        answer: Callable[[Tensor, Tensor, Context | None, Tensor | None], Tensor],
        recorder: Recorder,
        x: Tensor,
        t: Tensor,
        context: Context | None,
        class_ids: Tensor | None,
    ) -> None:
        inputs = self._inputs = _Inputs(
            x.clone(),
            t.clone(),
            None if context is None else [(k.clone(), v.clone()) for k, v in context],
            None if class_ids is None else class_ids.clone(),
        )
        self._held = context  # the context that was copied last
        self._replay, self._output = recorder.record(
            lambda: answer(inputs.x, inputs.t, inputs.context, inputs.class_ids)
        )

    def replay(self, x: Tensor, t: Tensor, context: Context | None, class_ids: Tensor | None) -> Tensor:
        inputs = self._inputs
        inputs.x.copy_(x)
        inputs.t.copy_(t)
        if context is not None and inputs.context is not None and context is not self._held:
            torch._foreach_copy_(
                [one for pair in inputs.context for one in pair], [one for pair in context for one in pair]
            )
            self._held = context
        if class_ids is not None and inputs.class_ids is not None:
            inputs.class_ids.copy_(class_ids)
        self._replay()
        return self._output.clone()


def _shapes(x: Tensor, context: Context | None, class_ids: Tensor | None) -> Shapes:
    """What recordings are told apart by."""
    first = () if not context else tuple(context[0][0].shape)
    return (tuple(x.shape), first, (-1,) if class_ids is None else tuple(class_ids.shape))
