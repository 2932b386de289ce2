"""Sends what a stage tells to the store, in a background thread, so that no work waits for MLflow."""

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

from darkroom.core.errors import DarkroomError
from darkroom.tracking.store import Metric, Store, first_line, location

FLUSH_EVERY = 2.0  # seconds metrics may wait to be sent together
RETRY_EVERY = 2.0  # seconds between attempts while a server is away
GIVE_UP_AFTER = 20.0  # seconds after the stage's end

Event = Callable[[Store, str], None]  # called with the open store and the run's id


class Sender:
    """Opens the store, begins a run with `begin` (which returns its id) and sends it events, in their order.

    A server that goes away costs the stage nothing: events wait until it is back, and are given up, with a warning,
    only some time after the stage has ended.
    """

    def __init__(self, begin: Callable[[Store], str]) -> None:
        self.failure: DarkroomError | None = None  # why the run could not be begun
        self._begin = begin
        self._events: SimpleQueue[Event | list[Metric] | None] = SimpleQueue()
        self._give_up_at = float("inf")
        self._lost, self._reason = 0, ""
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def put(self, event: Event | list[Metric]) -> None:
        """Have `event` sent, soon; returns at once.

        Raises:
            DarkroomError: the run could not be begun.
        """
        if self.failure is not None:
            raise self.failure
        self._events.put(event)

    def finish(self, within: float | None = None) -> None:
        """Wait until everything is sent or given up, or for `within` seconds.

        Raises:
            DarkroomError: the run could not be begun.
        """
        self._give_up_at = time.monotonic() + GIVE_UP_AFTER
        self._events.put(None)
        self._thread.join(within)
        if self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        try:
            store = Store()
            run = self._begin(store)
        except DarkroomError as error:
            self.failure = error
            return
        except Exception as error:
            self.failure = DarkroomError(
                f"no run can be begun in {location()} ({first_line(error)}); mend it, or set DARKROOM_TRACKING=off"
            )
            return
        metrics: list[Metric] = []
        flushed = time.monotonic()
        event: Event | list[Metric] | None = []
        while event is not None:
            try:
                event = self._events.get(timeout=FLUSH_EVERY)
            except Empty:
                event = []
            if isinstance(event, list):
                metrics += event
            if metrics and (not isinstance(event, list) or time.monotonic() - flushed >= FLUSH_EVERY):
                batch, metrics, flushed = metrics, [], time.monotonic()
                self._send(partial(_log, batch), store, run)
            if callable(event):
                self._send(event, store, run)
        if self._lost:
            _warn(f"{self._lost} records did not reach {location()} ({self._reason}); the stage's outputs are whole")

    def _send(self, event: Event, store: Store, run: str) -> None:
        while True:
            try:
                return event(store, run)
            except Exception as error:
                if not store.is_away(error):
                    return _warn(f"{location()} does not take a record: {first_line(error)}")
                if time.monotonic() > self._give_up_at:
                    self._lost += 1
                    self._reason = first_line(error)
                    return None
                time.sleep(RETRY_EVERY)


def _log(metrics: list[Metric], store: Store, run: str) -> None:
    store.log_metrics(run, metrics)


def _warn(message: str) -> None:
    print(f"darkroom: tracking: {message}", file=sys.stderr, flush=True)
