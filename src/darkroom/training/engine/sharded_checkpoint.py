"""Checkpoints that the processes of a training write together, each the parts of the tensors that it holds."""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch.distributed as dist

from darkroom.core.checkpoint import (
    SHARDED,
    check_file,
    check_manifest,
    file_digest,
    packed,
    read_state,
    write_state,
)
from darkroom.core.errors import DarkroomError
from darkroom.core.nested import unpack
from darkroom.core.shards import FILES, load_shards, names_of_sharded, save_shards

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")


class Peers(Protocol):
    """The processes of a training; see `distributed.Processes`."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def from_leader(self, value: T) -> T: ...


@dataclass(frozen=True)
class ShardedStorage:
    """The `Storage` of several processes, of any number whatever number wrote it.

    Every process writes a file of its own and hashes it; when all have, the one that leads writes the rest, and the
    checkpoint gets its name.
    """

    peers: Peers
    mesh: "DeviceMesh"

    def decided(self, action: int) -> int:
        """See `Storage`."""
        return self.peers.from_leader(action)

    def alone(self, action: Callable[[], None]) -> None:
        """See `Storage`."""
        self._collective(action if self.peers.rank == 0 else lambda: None)

    def write(self, folder: Path, content: Mapping[str, Any]) -> None:
        """See `Storage`."""
        state, tensors = packed(content)
        save_shards(folder, tensors)
        files = sorted(folder.glob(FILES))[self.peers.rank :: self.peers.size]
        digests: dict[str, str] = {}
        for found in self._collective(lambda: {file.name: file_digest(file) for file in files}):
            digests |= found
        state[SHARDED] = names_of_sharded(tensors)
        self.alone(lambda: write_state(folder, state, digests))

    def read(self, folder: Path) -> dict[str, Any]:
        """See `Storage`; each process checks some of the files, and reads its parts."""

        def check() -> None:
            for name in sorted(check_manifest(folder))[self.peers.rank :: self.peers.size]:
                check_file(folder, name)

        self._collective(check)
        state = read_state(folder)
        sharded = None if SHARDED not in state else set(state[SHARDED])

        def divided(name: str, dimensions: int) -> bool:
            return dimensions > 0 if sharded is None else name in sharded  # None: one process wrote it

        tensors = load_shards(folder, divided, self.mesh)
        return {**state, "parts": unpack(state["parts"], tensors)}

    def _collective(self, action: Callable[[], T]) -> list[T]:
        """What `action` gives in each process.

        Raises:
            OSError, DarkroomError: in one of them it raised that, or could not read what is there.
        """
        mine: tuple[T | None, tuple[int, str] | str | None]
        try:
            mine = action(), None
        except OSError as error:
            mine = None, (error.errno or errno.EIO, str(error))
        except (DarkroomError, ValueError, KeyError) as error:
            mine = None, str(error)
        everyone: list[Any] = [None] * self.peers.size
        dist.all_gather_object(everyone, mine)
        for _, failed in everyone:
            if isinstance(failed, str):
                raise DarkroomError(failed)
            if failed is not None:
                raise OSError(*failed)
        return [found for found, _ in everyone]
