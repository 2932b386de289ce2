"""How the network of a training is divided among its processes, if it is: what `fit` does differently then."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from darkroom.config.training import Optimization
from darkroom.core.checkpoint import Checkpoints
from darkroom.training.engine.distributed import Processes
from darkroom.training.engine.ema import Network
from darkroom.training.engine.sharded_checkpoint import ShardedStorage
from darkroom.training.engine.sharding import check_optimizer, follow, gather, outline, shard
from darkroom.training.engine.task import Task

T = TypeVar("T")


@dataclass(frozen=True)
class Division(Generic[Network]):
    """A task's network, sharded over its processes; or not, and then nothing here does anything.

    average: what its average begins with, sharded too. shape: the network as it was, without weights.
    """

    processes: Processes
    average: Network | None = None
    shape: Network | None = None

    @classmethod
    def of(
        cls, task: Task[Network], config: Optimization, processes: Processes, checkpoints: Checkpoints
    ) -> "Division[Network]":
        """Shard the task's network where it is to be, and have its checkpoints written by all processes.

        Raises:
            DarkroomError: a training that cannot be sharded, or processes whose weights are not the same.
        """
        if not (task.shards and processes.shards):
            return cls(processes)
        from torch.distributed.device_mesh import init_device_mesh

        check_optimizer(config.optimizer)
        processes.check_alike(0, [task.network])
        mesh = init_device_mesh(processes.device.type, (processes.size,))
        shape, average = outline(task.network), outline(task.network)
        shard(task.network, mesh)
        checkpoints.storage = ShardedStorage(processes, mesh)
        return cls(processes, follow(task.network, average, mesh), shape)

    @property
    def takes_part(self) -> bool:
        """Whether this process computes what is measured and shown: the leader, or all, each of which has a part."""
        return self.processes.leads or self.shape is not None

    def agreed(self, value: T) -> T:
        """What the leader measured, where others measured it too: rounding may differ, decisions may not."""
        return value if self.shape is None else self.processes.from_leader(value)

    def handed_on(self, network: Network) -> Network:
        """The whole network, on the CPU; processes that do not lead end here, by SystemExit."""
        if self.shape is None:
            return network
        gathered = gather(network, self.shape, self.processes.leads)
        self.processes.leave()
        return gathered
