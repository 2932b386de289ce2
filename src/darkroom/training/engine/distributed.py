"""One training by several processes, each of which does its share of the rows of every batch.

All hold the same networks, optimisers and averages. Gradients and logged values are summed over the processes, so that
all take the same step. There is no wrapper around the network, because the loop owns the step.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from darkroom.core.errors import DarkroomError

BUCKET = 2**25  # bytes of gradients that are summed at once
TIMEOUT = timedelta(days=7)  # the others wait while the leader validates; who has ended, `Company` notices sooner
CPU = torch.device("cpu")
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


class Company(Protocol):
    """Whoever brings the processes of a training together."""

    def rendezvous(self) -> AbstractContextManager[Path]:
        """All processes are there while the block runs; gives a path, the same for all, for a file to meet at."""
        ...

    def who_left(self) -> str | None:
        """Which process has ended, and what to do, as an error says it; None where nobody is known to."""
        ...


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them; a single one changes nothing.

    rank: 0 leads: it alone has hooks, writes and speaks. device: where this one computes; NCCL on CUDA, else Gloo.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    company: Company | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def micro_batches(self, batch_size: int, accumulation: int) -> list[slice]:
        """The rows that this process takes of each of the `accumulation` micro-batches of a batch.

        Raises:
            DarkroomError: too few rows for all processes.
        """
        pieces = accumulation * self.size
        if self.size > 1 and batch_size < pieces:
            raise DarkroomError(
                f"processes = {self.size}: a batch of {batch_size} in {accumulation} micro-batches has no row for "
                "each of them; take fewer processes, less accumulation, or larger batches"
            )
        edges = [round(i * batch_size / pieces) for i in range(pieces + 1)]
        return [slice(a, b) for a, b in pairwise(edges)][self.rank :: self.size]

    @contextmanager
    def distributed(self, step: int, networks: Sequence[nn.Module]) -> Iterator[Path | None]:
        """Train in this block, from step `step` on; in a process that does not lead, nothing comes after it.

        Gives the path at which several processes meet, beside which they can leave word for each other.

        Raises:
            DarkroomError: a network with batch norms, or processes that do not begin with the same weights and step.
        """
        if self.company is None:
            yield None
            return
        for network in networks:
            if any(isinstance(module, _BatchNorm) for module in network.modules()):
                raise DarkroomError(
                    f"processes = {self.size}: {type(network).__name__} has batch norms, whose statistics each process "
                    "would take from its own rows; set DARKROOM_PROCESSES=1"
                )
        with self.company.rendezvous() as path:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)  # not open to the network
            dist.init_process_group(
                "nccl" if self.device.type == "cuda" else "gloo",
                store=dist.FileStore(str(path), self.size),  # type: ignore[attr-defined]
                rank=self.rank,
                world_size=self.size,
                timeout=TIMEOUT,
            )
            try:
                self._check_alike([step, *(_digest(network) for network in networks)])
                yield path
            finally:
                dist.destroy_process_group()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient with its sum over the processes."""
        if self.size == 1:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            total = self._reduce(torch.cat([gradient.reshape(-1) for gradient in bucket]))
            sums = torch.split(total, [gradient.numel() for gradient in bucket])
            for gradient, summed in zip(bucket, sums, strict=True):
                gradient.copy_(summed.view(gradient.shape))

    def sum_values(self, values: Tensor) -> Tensor:
        """Each value summed over the processes, in place; all have as many in the same order."""
        return values if self.size == 1 else self._reduce(values)

    def mean(self, x: Tensor, rows: int) -> Tensor:
        """The mean of `x` over the processes, where it counts as often as a process has rows; without gradient."""
        if self.size == 1:
            return x
        total = self._reduce(torch.cat([x.detach().reshape(-1) * rows, x.new_tensor([rows])]))
        return (total[:-1] / total[-1]).view(x.shape)

    def gather(self, x: Tensor) -> Tensor:
        """The rows (N, …) of all processes' (n, …), in order; a gradient goes back to the process that has the row.

        It is that of the sum of the processes' losses.
        """
        if self.size == 1:
            return x
        gathered: Tensor = _Gather.apply(x, self)  # type: ignore[no-untyped-call]
        return gathered

    def _check_alike(self, numbers: Sequence[int]) -> None:
        """Refuse to begin where the processes have not the same `numbers`."""
        largest = self._reduce(torch.tensor([f * n for n in numbers for f in (1, -1)], device=self.device), "max")
        if bool(largest.view(-1, 2).sum(dim=1).any()):
            raise DarkroomError(
                "the processes of this training do not begin with the same weights and step; run again, and if it "
                "stays so, set DARKROOM_PROCESSES=1"
            )

    def _reduce(self, x: Tensor, operation: str = "sum") -> Tensor:
        """The sum or the maximum of `x` over all processes, in its place.

        Raises:
            DarkroomError: another process has ended.
        """
        assert self.company is not None
        try:
            dist.all_reduce(x, dist.ReduceOp.SUM if operation == "sum" else dist.ReduceOp.MAX)
        except RuntimeError as error:
            lost = f"the processes of this training lost each other ({str(error).splitlines()[0]}); run again"
            raise DarkroomError(self.company.who_left() or lost) from None
        return x


ALONE = Processes()


class _Gather(torch.autograd.Function):
    """Sums where every process has zeros in the others' rows: any number of rows a process, and the same both ways."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, processes: Processes) -> Tensor:
        counts = torch.zeros(processes.size, dtype=torch.int64, device=x.device)
        counts[processes.rank] = len(x)
        processes._reduce(counts)
        start = int(counts[: processes.rank].sum())
        ctx.rows, ctx.processes = slice(start, start + len(x)), processes
        gathered = x.new_zeros(int(counts.sum()), *x.shape[1:])
        gathered[ctx.rows] = x
        return processes._reduce(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = ctx.processes._reduce(gradients[0].clone(memory_format=torch.contiguous_format))
        return gradient[ctx.rows], None


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients in order, some together: of one type and, but for single large ones, at most BUCKET bytes."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        size = sum(g.nbytes for g in bucket) + gradient.nbytes
        if bucket and (gradient.dtype != bucket[0].dtype or size > BUCKET):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _digest(network: nn.Module) -> int:
    """A number that two networks hardly share unless their weights are the same to the bit."""
    state: Mapping[str, Tensor] = network.state_dict()
    return sum(int(t.reshape(-1).view(torch.uint8).sum(dtype=torch.int64)) for t in state.values())
