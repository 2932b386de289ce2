"""Who does tasks that do not depend on each other: this process, processes beside it, or a Ray cluster.

One number of threads computes all of them, wherever that is (see `Runtime.for_tasks`): the same bytes come of it.
"""

import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from darkroom.core import device as devices
from darkroom.core.ahead import forked, spawned, workers
from darkroom.core.progress import Silence

T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)

KEPT = 2  # of what tasks work with, in a process


class Pending(Protocol[T_co]):
    """A task that was handed in."""

    def result(self) -> T_co:
        """What it gives, once it is done; raises what it raised."""
        ...


class Pool(Protocol):
    """Does tasks; depth: how many may be handed in ahead of the one that is waited for."""

    @property
    def depth(self) -> int: ...

    def submit(self, task: Callable[[], T]) -> Pending[T]:
        """Have a task done, soon."""
        ...


@dataclass(frozen=True)
class _Done(Generic[T]):
    value: T

    def result(self) -> T:
        return self.value


class Here:
    """This process, at once."""

    depth = 0

    def submit(self, task: Callable[[], T]) -> Pending[T]:
        return _Done(task())


@contextmanager
def _here() -> Iterator[Pool]:
    yield Here()


def pool(settings: devices.Runtime, light: bool) -> AbstractContextManager[Pool]:
    """Whoever the settings name.

    light: the tasks use neither PyTorch nor Arrow and little memory: on Linux as many forks do them as there are
        threads. Otherwise as many new processes as the settings name, where they name several.

    Raises:
        DarkroomError: Ray is asked for, and is not installed or not there.
    """
    if settings.ray:
        from darkroom.core.ray_pool import ray_pool

        return ray_pool(settings, light)
    if light and sys.platform == "linux" and workers() > 1:
        return forked(workers())
    if not light and settings.processes > 1:
        return spawned(settings.processes, partial(_start, settings))
    return _here()


def _start(settings: devices.Runtime, rank: int) -> None:
    Silence.kept = True
    devices.start(settings, rank, settings.processes)


class Kept(Generic[T]):
    """What the tasks of one kind work with: the first of them in a process makes it, those behind find it there.

    It goes to other processes as what makes it; a process keeps the latest few alone.
    """

    _latest: ClassVar[dict[str, Any]] = {}

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._key = make, uuid.uuid4().hex

    def __call__(self) -> T:
        if self._key not in Kept._latest:
            while len(Kept._latest) >= KEPT:
                Kept._latest.pop(next(iter(Kept._latest)))
            Kept._latest[self._key] = self._make()
        found: T = Kept._latest[self._key]
        return found


class Helpers:
    """Who helps the task that this process does: on a GPU of a Ray cluster, tasks that read ahead on CPUs."""

    read_ahead: "ReadAhead | None" = None


class ReadAhead(Protocol):
    """read(item) of each item, in order, made elsewhere before it is needed."""

    def __call__(self, read: Callable[[T], U], items: Iterable[T]) -> Iterator[U]: ...
