"""What a loss is computed from: batches that are made before their step, and copied without waiting for the device."""

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.core.ahead import in_thread

AHEAD = 4  # steps whose batches may be made before their turn


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

    def empty_on(self, device: torch.device) -> "Batch":
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


Batches = Iterable[Iterable[Batch]]  # of a step: by phase, then by micro-batch


def never(step: int) -> bool:
    """No step."""
    return False


@dataclass(frozen=True)
class Loss:
    """A loss in two halves, so that the first can be done ahead.

    inputs: (step, rows) -> the batch of these rows of the step's global batch, on the CPU. It draws every random
        number, by generators of its own.
    compute: the batch, on the device -> {"loss": what is minimised, other terms for the log}, without reading a value.
    waits: whether the inputs of a step depend on the weights, and so can be made in their turn only.
    """

    inputs: Callable[[int, slice], Batch]
    compute: Callable[[Batch], Mapping[str, Tensor]]
    waits: Callable[[int], bool] = never

    @classmethod
    def of(cls, terms: Callable[[int, slice], Mapping[str, Tensor]]) -> "Loss":
        """Of a function of step and rows, which makes its batch itself."""
        return cls(
            lambda step, rows: Batch({}, (step, rows.start, rows.stop)),
            lambda batch: terms(batch.variant[0], slice(*batch.variant[1:])),  # type: ignore[index]
        )

    def __call__(self, step: int, rows: slice) -> Mapping[str, Tensor]:
        """Both halves, on the CPU."""
        return self.compute(self.inputs(step, rows))


def made_in_turn(
    losses_of: Callable[[int], Sequence[Loss]], micro_batches: Sequence[slice], steps: range, device: torch.device
) -> Generator[Batches]:
    """The batches of each step on `device`, each made when it is asked for.

    Args:
        losses_of: step -> the losses of the phases that take part in it.
        micro_batches: the rows of each.
    """
    for step in steps:
        yield ((loss.inputs(step, rows).to(device) for rows in micro_batches) for loss in losses_of(step))


def made_ahead(
    losses_of: Callable[[int], Sequence[Loss]], micro_batches: Sequence[slice], steps: range, device: torch.device
) -> Generator[Batches]:
    """The same in pinned memory, for work on `device`, most of them made before their turn by a thread."""

    def make(step: int) -> Batches:
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        return [[loss.inputs(step, rows).pinned() for rows in micro_batches] for loss in losses_of(step)]

    return in_thread(make, steps, AHEAD, lambda step: any(loss.waits(step) for loss in losses_of(step)))
