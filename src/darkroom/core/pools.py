"""Who does tasks that do not depend on each other: this process, processes beside it, or a Ray cluster.

One number of threads computes all of them, wherever that is (see `Runtime.for_tasks`): the same bytes come of it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from darkroom.core import device as devices
from darkroom.core.ahead import forked, spawned, workers
from darkroom.core.progress import Silence
from darkroom.core.ray_pool import ray_pool
from darkroom.core.tasks import Pending, Pool

T = TypeVar("T")


@dataclass(frozen=True)
class _Done(Generic[T]):
    value: T

    def result(self) -> T:
        return self.value


class Here:
    """This process, at once."""

    depth, name = 0, ""

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
        return ray_pool(settings, light)
    if light and sys.platform == "linux" and workers() > 1:
        return forked(workers())
    if not light and settings.processes > 1:
        return spawned(settings.processes, partial(_start, settings))
    return _here()


def _start(settings: devices.Runtime, rank: int) -> None:
    Silence.kept = True
    devices.start(settings, rank, settings.processes)
