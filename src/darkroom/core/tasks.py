"""Tasks that do not depend on each other: who does them, what they work with, who helps them."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Generic, Protocol, TypeVar

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
    """Does tasks.

    depth: how many may be handed in ahead of the one that is waited for. name: who does them, if not this process
    or forks of it.
    """

    @property
    def depth(self) -> int: ...

    @property
    def name(self) -> str: ...

    def submit(self, task: Callable[[], T]) -> Pending[T]:
        """Have a task done, soon."""
        ...


class Kept(Generic[T]):
    """What the tasks of one kind work with: the first of them in a process makes it, those behind find it there.

    It goes to other processes as what makes it; a process keeps the latest few alone.
    """

    _latest: ClassVar[dict[str, Any]] = {}

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._key = make, uuid.uuid4().hex

    def __call__(self) -> T:
        if self._key not in Kept._latest:
            made = self._make()  # may keep others itself
            while len(Kept._latest) >= KEPT:
                Kept._latest.pop(next(iter(Kept._latest)))
            Kept._latest[self._key] = made
        found: T = Kept._latest[self._key]
        return found


class ReadAhead(Protocol):
    """read(item) of each item, in order, made elsewhere before it is needed."""

    def __call__(self, read: Callable[[T], U], items: Iterable[T]) -> Iterator[U]: ...


class Helpers:
    """Who helps the task that this process does: on a GPU of a Ray cluster, tasks that read ahead on CPUs."""

    read_ahead: ReadAhead | None = None
