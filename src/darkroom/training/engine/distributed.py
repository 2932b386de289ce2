"""One training by several processes, each of which computes its share of the rows of every batch.

All hold the same networks, optimisers and averages, and DistributedDataParallel averages the gradients while they are
computed, so that all take the same step; or each holds a part of them, see `sharding`. What the leader alone decides
(where to end) the others learn from the store that all met at, so that nobody waits for a device. `runner.launch`
starts the processes.
"""

import itertools
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from darkroom.core.device import Strategy
from darkroom.core.errors import DarkroomError
from darkroom.training.engine.sharding import is_sharded

T = TypeVar("T")
BUCKET = 25.0  # MiB of gradients that are reduced at once
TIMEOUT = timedelta(days=7)  # the others wait while the leader validates; one that has ended is noticed sooner
KEPT = 1000  # decisions of the leader that stay in the store: nobody is so many steps behind
LEFT = ""  # in place of a decision: the leader takes no further part
CPU = torch.device("cpu")
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


class LostError(DarkroomError):
    """Another process of the training has ended, and which one is not known here."""


class Terms(nn.Module):
    """A loss as the forward pass of the network it trains, which is how networks can be wrapped.

    Args:
        compute: see `Loss`.
    """

    def __init__(self, network: nn.Module, compute: Callable[..., Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.network, self.compute = network, compute

    def forward(self, batch: Any) -> Mapping[str, Tensor]:
        """See `Loss.compute`; only the loss has a gradient."""
        return {name: x if name == "loss" else x.detach() for name, x in self.compute(batch).items()}


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them; a single one changes nothing.

    rank: 0 leads: it alone has hooks, writes and speaks. device: where this one computes; NCCL on CUDA, else Gloo.
    store: at which several met.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    strategy: Strategy = "ddp"
    store: Store | None = None
    _decisions: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @property
    def shards(self) -> bool:
        """Whether large networks are divided among them."""
        return self.strategy == "fsdp2" and self.size > 1

    @property
    def first_device(self) -> torch.device:
        """Where a network is made that may be divided: then no device has room for the whole."""
        return CPU if self.shards else self.device

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

    def from_leader(self, value: T) -> T:
        """The leader's `value`, which JSON must hold, in every process; all call this as often, in the same order.

        Raises:
            SystemExit: the leader takes no further part; there is nothing left to do.
        """
        if self.store is None:
            return value
        number = next(self._decisions)
        with losses_recognised():
            if self.leads:
                self.store.set(str(number), json.dumps(value))
                if number >= KEPT:
                    self.store.delete_key(str(number - KEPT))
                return value
            decided = self.store.get(str(number))
        if decided.decode() == LEFT:
            raise SystemExit(0)
        found: T = json.loads(decided)
        return found

    @contextmanager
    def distributed(self, step: int, networks: Sequence[nn.Module]) -> Iterator[None]:
        """Train in this block, from step `step` on; behind it, all `leave` but those with sharded networks.

        Raises:
            DarkroomError: a network with batch norms, or processes that do not begin with the same weights and step.
            LostError: another process has ended.
        """
        if self.size == 1:
            yield
            return
        for network in networks:
            if any(isinstance(module, _BatchNorm) for module in network.modules()):
                raise DarkroomError(
                    f"processes = {self.size}: {type(network).__name__} has batch norms, whose statistics each process "
                    "would take from its own rows; set DARKROOM_PROCESSES=1"
                )
        with losses_recognised():
            self.check_alike(step, [network for network in networks if not is_sharded(network)])
            yield
        if not any(map(is_sharded, networks)):
            self.leave()

    def check_alike(self, step: int, networks: Sequence[nn.Module]) -> None:
        """Refuse to begin where the processes have not the same step and weights; a no-op for one."""
        if self.size == 1:
            return
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, [step, *map(_digest, networks)])
        if any(other != everyone[0] for other in everyone):
            raise DarkroomError(
                "the processes of this training do not begin with the same weights and step; run again, and if it "
                "stays so, set DARKROOM_PROCESSES=1"
            )

    def leave(self) -> None:
        """Nothing more is done together; a process that does not lead ends here, by SystemExit."""
        if self.size > 1:
            dist.destroy_process_group()
        if not self.leads:
            raise SystemExit(0)

    def parallel(self, terms: nn.Module) -> nn.Module:
        """`terms`, whose backward pass averages the gradients over the processes; its weights stay where they are."""
        if self.size == 1 or is_sharded(terms):
            return terms
        # Where unused parameters are looked for, the first division into buckets stays. A new one after the first step
        # would add in another order, and a resumed training by three would differ from an uninterrupted one.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a new name for broadcast_buffers
            return DistributedDataParallel(
                terms,
                broadcast_buffers=False,
                init_sync=False,
                bucket_cap_mb=BUCKET,
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
            )

    def reducing(self, terms: nn.Module, last: bool) -> AbstractContextManager[None]:
        """In this block gradients are summed up here, and averaged over the processes if it is a step's `last`."""
        return terms.no_sync() if isinstance(terms, DistributedDataParallel) and not last else nullcontext()

    def sum_values(self, values: Tensor) -> Tensor:
        """Each value summed over the processes, in place; all have as many in the same order."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def mean(self, x: Tensor, rows: int) -> Tensor:
        """The mean of `x` over the processes, where it counts as often as a process has rows; without gradient."""
        if self.size == 1:
            return x
        total = self.sum_values(torch.cat([x.detach().reshape(-1) * rows, x.new_tensor([rows])]))
        return (total[:-1] / total[-1]).view(x.shape)

    def gather(self, x: Tensor) -> Tensor:
        """The rows (N, …) of all processes' (n, …), in order; a gradient goes back to the process that has the row.

        It is that of the sum of the processes' losses.
        """
        if self.size == 1:
            return x
        gathered: Tensor = _Gather.apply(x, self)  # type: ignore[no-untyped-call]
        return gathered


ALONE = Processes()


@contextmanager
def group(rank: int, size: int, device: torch.device, store: Store, strategy: Strategy = "ddp") -> Iterator[Processes]:
    """Processes that have met at `store`, for this block; when the leader leaves it, the others are told so.

    Raises:
        DarkroomError: a strategy that is not for several processes.
    """
    if strategy == "none":
        raise DarkroomError(f"strategy = {strategy!r}: is not for {size} processes; set DARKROOM_STRATEGY=ddp")
    processes = Processes(rank, size, device, strategy, PrefixStore("decisions", store))
    with losses_recognised():
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
        )
    # Held to the end. DistributedDataParallel, which would else be the last to hold it, closes it under the
    # interpreter's lock, and waits for ever where one of its threads waits for that lock; PyTorch's own object lets go
    # of the lock.
    world = dist.group.WORLD
    store.set_timeout(TIMEOUT)
    try:
        yield processes
    finally:
        with suppress(RuntimeError):
            if processes.leads and processes.store is not None:
                processes.store.set(str(next(processes._decisions)), LEFT)
        if dist.is_initialized():
            dist.destroy_process_group()
        del world


class _Gather(torch.autograd.Function):
    """Sums where every process has zeros in the others' rows: any number of rows a process, and the same both ways."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, processes: Processes) -> Tensor:
        counts = torch.zeros(processes.size, dtype=torch.int64, device=x.device)
        counts[processes.rank] = len(x)
        dist.all_reduce(counts)
        start = int(counts[: processes.rank].sum())
        ctx.rows = slice(start, start + len(x))
        gathered = x.new_zeros(int(counts.sum()), *x.shape[1:])
        gathered[ctx.rows] = x
        dist.all_reduce(gathered)
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[ctx.rows], None


@contextmanager
def losses_recognised() -> Iterator[None]:
    """In this block a broken connection to another process, which PyTorch reports in many ways, is a LostError."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        said = str(error).splitlines()[0]
        raise LostError(
            f"the processes of this training lost each other ({said}); run again to resume from the last checkpoint"
        ) from None


def _digest(network: nn.Module) -> int:
    """A number that two networks hardly share unless their weights are the same to the bit."""
    state: Mapping[str, Tensor] = network.state_dict()
    return sum(int(t.reshape(-1).view(torch.uint8).sum(dtype=torch.int64)) for t in state.values())
