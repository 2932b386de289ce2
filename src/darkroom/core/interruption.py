"""SIGTERM and Ctrl-C: at once where nothing would be lost, else when the work comes to a point it can resume from."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 6.0  # seconds that work has to come to such a point; with writing, ten
LOOK_AGAIN = 0.02  # seconds
ALARM = getattr(signal, "SIGALRM", None)  # not on Windows
IMPORTING = ("importlib._bootstrap", "_frozen_importlib")
LOCKING = ("threading", "queue", "logging")
WAITING = ("join", "wait", "_wait_for_tstate_lock")  # of LOCKING: these may be broken off


class Interrupted(KeyboardInterrupt):
    """Raised where the work stands, so that everything is left in order.

    number: of the signal. saved: what was saved on the way out, for people; empty: nothing.
    """

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.saved = number, saved


class Interruption:
    """Whether this process was asked to end; `listen` once, from the main thread."""

    def __init__(self) -> None:
        self._asked: int | None = None
        self._latest = 0.0  # when it is broken off at the latest, of time.monotonic()
        self._deferring = False

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """In this block the work looks at `asked` by itself.

        GRACE seconds after a signal it is broken off all the same, and at a second signal at once.
        """
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._asked is not None:
            self.settle()
            raise Interrupted(self._asked)

    @property
    def asked(self) -> int | None:
        """The signal that came, if one did; also where what it raised was lost on the way."""
        return self._asked

    def settle(self) -> None:
        """The point is reached: no more breaking off."""
        if ALARM is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _take(self, number: int, frame: FrameType | None) -> None:
        now, again = time.monotonic(), self._asked is not None and number != ALARM
        if self._asked is None:
            self._asked, self._latest = number, now + GRACE
        if ALARM is not None and now < self._latest:
            if self._deferring and not again:
                return self._look_again_in(self._latest - now)
            if _is_delicate(frame):
                return self._look_again_in(LOOK_AGAIN)
        if self._deferring and not again and ALARM is None:
            return None
        raise Interrupted(self._asked)

    def _look_again_in(self, seconds: float) -> None:
        if ALARM is not None:
            signal.signal(ALARM, self._take)
            signal.setitimer(signal.ITIMER_REAL, seconds)


def _is_delicate(frame: FrameType | None) -> bool:
    """Whether an exception here might be dropped, or leave a lock held that other threads wait for.

    Of imports both is true: PyTorch's drops a KeyboardInterrupt, and the tracking thread imports too.
    """
    if frame is not None and frame.f_globals.get("__name__") in LOCKING and frame.f_code.co_name not in WAITING:
        return True
    while frame is not None:
        if frame.f_globals.get("__name__") in IMPORTING:
            return True
        frame = frame.f_back
    return False
