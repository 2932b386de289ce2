"""Work done ahead of who needs it: in a thread beside, with its results in order, or in processes beside."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from typing import TypeVar

from darkroom.core.device import available_cores, runtime
from darkroom.core.errors import DarkroomError

MOST = 32  # processes or threads
LOOK_EVERY = 1.0  # seconds, for whether the process that these work for is there
T = TypeVar("T")
U = TypeVar("U")


def workers() -> int:
    """How many processes or threads may work side by side: as many as PyTorch's threads. Results never depend on it."""
    return min(runtime().threads or available_cores(), MOST)


def _never(item: object) -> bool:
    return False


def in_thread(
    make: Callable[[T], U], items: Iterable[T], depth: int, waits: Callable[[T], bool] = _never
) -> Generator[U]:
    """make(item) of each item, in order; one thread is up to `depth` items ahead.

    Args:
        waits: whether an item, and so all behind it, can only be made once all before it have been taken.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        try:
            yield from _in_order(pool, make, items, depth, waits)
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def forked(number: int) -> Iterator["Processes"]:
    """`number` processes that are forks of this one; they end with it, whatever ends it.

    What they are given must use neither PyTorch nor Arrow, whose threads a fork does not have. Linux only.
    Raises DarkroomError, where a result is taken: a process was ended from outside.
    """
    context = multiprocessing.get_context("fork")
    over = context.Event()
    executor = ProcessPoolExecutor(number, context, _start_fork, (os.getpid(), over))
    try:
        yield Processes(executor, number)
        executor.shutdown()
    except BrokenProcessPool:
        raise _ended_from_outside(number, "THREADS") from None
    finally:
        over.set()  # killed processes would leave behind a thread of the pool that waits for one to take an item
        executor.shutdown(wait=False, cancel_futures=True)


@contextmanager
def spawned(number: int, start: Callable[[int], object]) -> Iterator["Processes"]:
    """`number` new processes, each of which calls `start` with its rank first; they end with this one, or the block.

    Raises DarkroomError, where a result is taken: a process was ended from outside.
    """
    context = multiprocessing.get_context("spawn")
    over, ranks = context.Event(), context.SimpleQueue()
    for rank in range(number):
        ranks.put(rank)
    executor = ProcessPoolExecutor(number, context, _start_spawned, (os.getpid(), over, ranks, start))
    try:
        yield Processes(executor, number, f"{number} processes")
    except BrokenProcessPool:
        raise _ended_from_outside(number, "PROCESSES") from None
    finally:
        over.set()  # a task may take minutes: nobody waits for those that nobody wants
        executor.shutdown(wait=False, cancel_futures=True)


def _ended_from_outside(number: int, variable: str) -> DarkroomError:
    return DarkroomError(
        f"one of {number} processes that work for this stage was ended from outside, as happens where memory is short; "
        f"set DARKROOM_{variable} to fewer, and run again"
    )


class Processes:
    """Processes that tasks are handed to; see tasks.Pool."""

    def __init__(self, executor: ProcessPoolExecutor, number: int, name: str = "") -> None:
        self._executor, self.depth, self.name = executor, 2 * number, name

    def submit(self, task: Callable[[], T]) -> "Future[T]":
        """Have one of them do a task, which goes there pickled."""
        return self._executor.submit(_unless_over, task)


def _in_order(
    pool: Executor, make: Callable[[T], U], items: Iterable[T], depth: int, waits: Callable[[T], bool] = _never
) -> Generator[U]:
    waiting: deque[Future[U]] = deque()
    for item in items:
        while waiting and waits(item):
            yield waiting.popleft().result()
        waiting.append(pool.submit(make, item))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class _Over:
    """Of a process that works for another: whether nobody wants its results any more."""

    event: Event


def _unless_over(task: Callable[[], T]) -> T:
    if _Over.event.is_set():
        raise CancelledError
    return task()


def _start_fork(parent: int, over: Event) -> None:
    """In a new process: signals are the parent's business, and its end is the end of this one."""
    _Over.event = over
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), name="watch parent", daemon=True).start()


def _start_spawned(parent: int, over: Event, ranks: "SimpleQueue[int]", start: Callable[[int], object]) -> None:
    _start_fork(parent, over)
    threading.Thread(target=_end_when, args=(over,), name="watch for the end", daemon=True).start()
    start(ranks.get())


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    os._exit(1)


def _end_when(over: Event) -> None:
    over.wait()
    os._exit(0)
