"""Inputs of a step that are known before it: made ahead by a thread, and copied without waiting for the device."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

AHEAD = 4  # steps whose inputs may be made before their turn


@dataclass(frozen=True)
class Batch:
    """What a loss is computed from.

    variant: what else decides which operations that takes; batches of one variant and one shape take the same.
    """

    tensors: Mapping[str, Tensor]
    variant: Hashable = None

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`."""
        return Batch({name: x.to(device) for name, x in self.tensors.items()}, self.variant)

    def pinned(self) -> "Batch":
        """In memory from which CUDA copies while the host goes on."""
        return Batch({name: x.pin_memory() for name, x in self.tensors.items()}, self.variant)

    def room(self, device: torch.device) -> "Batch":
        """Uninitialised tensors on `device` for a batch such as this one."""
        return Batch({name: torch.empty_like(x, device=device) for name, x in self.tensors.items()}, self.variant)

    def fill(self, other: "Batch") -> None:
        """Copy the tensors of a pinned batch of this shape into these, without waiting."""
        for name, x in self.tensors.items():
            x.copy_(other[name], non_blocking=True)

    @property
    def kind(self) -> Hashable:
        """Equal for batches that take the same operations."""
        shapes = tuple((name, tuple(x.shape), x.dtype) for name, x in self.tensors.items())
        return self.variant, shapes


def never(step: int) -> bool:
    """No step."""
    return False


@dataclass(frozen=True)
class PreparedLoss:
    """A loss in two halves, so that the first can be done ahead; called as a whole it is a `loop.Loss`.

    inputs: (step, rows) -> the batch, on the CPU. It draws every random number, by generators of its own.
    compute: the batch on `device` -> {"loss": what is minimised, other terms}, without reading a value back.
    waits: whether the inputs of a step depend on the weights, and so can be made in their turn only.
    """

    inputs: Callable[[int, slice], Batch]
    compute: Callable[[Batch], Mapping[str, Tensor]]
    device: torch.device
    waits: Callable[[int], bool] = never

    def __call__(self, step: int, rows: slice) -> Mapping[str, Tensor]:
        return self.compute(self.inputs(step, rows).to(self.device))


class Feeder:
    """Gives what `make` makes of each step, most of it made ahead by one thread.

    Args:
        make: a function of the step, and of nothing that changes before a step for which `waits` is true.
    """

    def __init__(
        self, make: Callable[[int], list[list[Batch]]], waits: Callable[[int], bool], pool: ThreadPoolExecutor
    ):
        self._make, self._waits, self._pool = make, waits, pool
        self._ahead: dict[int, Future[list[list[Batch]]]] = {}

    def get(self, step: int, end: int) -> list[list[Batch]]:
        """Those of `step`; the thread goes on with the next ones before `end`."""
        future = self._ahead.pop(step, None)
        made = self._make(step) if future is None else future.result()
        for later in range(step + 1, min(step + 1 + AHEAD, end)):
            if self._waits(later):
                break
            if later not in self._ahead:
                self._ahead[later] = self._pool.submit(self._make, later)
        return made


@contextmanager
def feeder(
    make: Callable[[int], list[list[Batch]]], waits: Callable[[int], bool], device: torch.device
) -> Iterator[Feeder]:
    """A `Feeder` for work on `device`, whose thread ends with the block."""
    own = device.type == "cuda" and device.index is not None
    pool = ThreadPoolExecutor(1, "batches", *((torch.cuda.set_device, (device,)) if own else ()))
    try:
        yield Feeder(make, waits, pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
