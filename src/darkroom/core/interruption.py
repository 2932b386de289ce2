"""SIGTERM and Ctrl-C: at once where nothing would be lost, else when the work comes to a point it can go on from."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 6.0  # seconds that work has to come to such a point; with writing, ten


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
        self._deferring = False

    def listen(self) -> None:
        """Take SIGTERM and SIGINT."""
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
        """The signal that came, if one did."""
        return self._asked

    def settle(self) -> None:
        """The point is reached: no more breaking off."""
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self._deferring or self._asked is not None:
            raise Interrupted(self._asked or number)
        self._asked = number
        if hasattr(signal, "setitimer"):  # not on Windows
            signal.signal(signal.SIGALRM, self._take)
            signal.setitimer(signal.ITIMER_REAL, GRACE)
