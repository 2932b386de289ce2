"""Work done ahead of who needs it: in a thread beside, or in processes beside, with its results in order."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
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


def in_processes(make: Callable[[T], U], items: Iterable[T], number: int) -> Generator[U]:
    """make(item) of each item, in order, each in one of `number` processes; they end with this one, whatever ends it.

    Close the iterator where it is not taken to its end. They are forks: `make` must use neither PyTorch nor Arrow,
    whose threads a fork does not have. Elsewhere than on Linux, and where `number` is 1, there are none. Raises
    DarkroomError: a process was ended from outside.
    """
    if number == 1 or sys.platform != "linux":
        yield from map(make, items)
        return
    context = multiprocessing.get_context("fork")
    over = context.Event()
    pool = ProcessPoolExecutor(number, context, _start_worker, (os.getpid(), over))
    try:
        yield from _in_order(pool, partial(_unless_over, make), items, 2 * number)
        pool.shutdown()
    except BrokenProcessPool:
        raise DarkroomError(
            f"one of {number} processes that prepare pictures was ended from outside, as happens where memory is "
            "short; set DARKROOM_THREADS to fewer, and run again"
        ) from None
    finally:
        over.set()  # killed processes would leave behind a thread of the pool that waits for one to take an item
        pool.shutdown(wait=False, cancel_futures=True)


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


def _unless_over(make: Callable[[T], U], item: T) -> U:
    if _Over.event.is_set():
        raise CancelledError
    return make(item)


def _start_worker(parent: int, over: Event) -> None:
    """In a new process: signals are the parent's business, and its end is the end of this one."""
    _Over.event = over
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), name="watch parent", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    os._exit(1)
