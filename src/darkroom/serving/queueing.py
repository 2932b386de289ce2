"""Whose turn it is to draw, and when drawing has to stop: at its deadline, when nobody waits for it, when the server
ends."""

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar

from darkroom.serving.limits import BusyError, EndingError, LimitError, Limits, RefusedError, variable

T = TypeVar("T")
LOOK_AGAIN = 0.1  # seconds
ending = threading.Event()  # set when this process is to end


class LeftError(RefusedError):
    """The client closed its connection: nobody reads this."""

    status, code = 499, "CANCELLED"


@dataclass(frozen=True)
class Arrival:
    """When a request came, of time.monotonic(), and whether its client has left since."""

    at: float = field(default_factory=time.monotonic)
    left: threading.Event = field(default_factory=threading.Event)


# Of the request that a thread works at, where the server says; MLflow's own does not.
arrival: ContextVar[Arrival | None] = ContextVar("arrival", default=None)


class Watch:
    """Ends the drawing of a request once nobody wants the result or its time is over.

    Of the samplers, ode takes hundreds of evaluations from one step to the next, so it is checked before each.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.arrival = limits, arrival.get() or Arrival()

    def check(self, waits: bool = False) -> None:
        """Check that the work is still wanted.

        Args:
            waits: whether the request still waits for its turn.

        Raises LimitError: it took longer than it may. BusyError: it waited so long. EndingError: the server was told to
        end. LeftError: the client has gone.
        """
        if ending.is_set():
            raise EndingError("the server is ending; ask again once it is back")
        if self.arrival.left.is_set():
            raise LeftError("the client closed the connection")
        passed, most = time.monotonic() - self.arrival.at, self.limits.seconds
        if passed <= most:
            return
        allowed = f"at most {most:g} are given to a request ({variable('seconds')})"
        if waits:
            raise BusyError(f"seconds = {passed:.1f}, waiting for others: {allowed}; ask again later")
        raise LimitError(f"seconds = {passed:.1f}: {allowed}; ask for fewer rows or steps, or smaller pictures")


class Queue:
    """Work of many threads, done by few, in the order in which it came.

    The threads that draw stay the same, for PyTorch keeps memory for each.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(limits.at_work, "drawing")
        self._there, self._lock = 0, threading.Lock()

    def do(self, work: Callable[[], T], watch: Watch) -> T:
        """Do `work` when its turn has come. Raises RefusedError: too many wait already, or see `Watch.check`."""
        with self._lock:
            check_capacity(self._there + 1, self._limits)
            self._there += 1
        try:
            watch.check(waits=True)
            done = self._pool.submit(work)
            while not wait([done], LOOK_AGAIN).done:
                try:
                    watch.check(waits=True)
                except RefusedError:
                    if done.cancel():  # else it has begun, and looks by itself
                        raise
            return done.result()
        finally:
            with self._lock:
                self._there -= 1


def check_capacity(there: int, limits: Limits) -> None:
    """Refuse a request where so many are there, with it. Raises BusyError: names the limits."""
    if there > limits.most_requests:
        raise BusyError(
            f"requests at once = {there}: {limits.at_work} at work ({variable('at_work')}) and {limits.waiting} "
            f"waiting ({variable('waiting')}) are taken; ask again later"
        )


def end_with_the_server() -> None:
    """Where a server has taken SIGTERM or SIGINT, set `ending` too; elsewhere they are left as they are."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if callable(before) and before is not signal.default_int_handler:
            signal.signal(number, _also_ending(before))


def _also_ending(before: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
    def handler(number: int, frame: FrameType | None) -> None:
        ending.set()
        before(number, frame)

    return handler
