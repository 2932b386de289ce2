"""Uploads a stage's events to the store, in a background thread, so that no work waits for MLflow."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from darkroom.core.errors import DarkroomError
from darkroom.tracking.outbox.event_log import EventLog, outbox_folder
from darkroom.tracking.outbox.events import Begin, Event, Metrics
from darkroom.tracking.outbox.pending import LATER, replay
from darkroom.tracking.outbox.upload import Upload
from darkroom.tracking.outputs import keep_outputs
from darkroom.tracking.secrets import first_line
from darkroom.tracking.store import Store, UnavailableError, warn, web_address

SEND_EVERY = 2.0  # seconds that metrics wait to be sent together, and between attempts while a server is away
LEAVE_AFTER = 5.0  # seconds after the stage's end, while a server is away


class Uploader:
    """Writes a run's events to its log, opens the store and uploads them, in their order.

    A server that goes away costs the stage nothing: events wait on disk until it is back, at the latest in a later
    stage. Neither does a full disk, but the events of that time.
    """

    def __init__(self, start: Begin) -> None:
        """Begin a run."""
        self.failure: DarkroomError | None = None  # why the run could not be begun
        self._event_log = EventLog.create(start)
        self._store: Store | None = None
        self._wakeup, self._finished = threading.Event(), threading.Event()
        self._leave_at = float("inf")
        self._complete = True
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    @property
    def run(self) -> str | None:
        return self._event_log.run

    @property
    def page(self) -> str | None:
        """The address of its page, once there is one."""
        if self._store is None or self.run is None:
            return None
        return f"{web_address(self._store.address)}/{self._store.run_link(self.run)}"

    def put(self, event: Event) -> None:
        """Have `event` sent, soon; returns at once."""
        if self.failure is not None:
            raise self.failure
        try:
            self._event_log.append(event)
        except OSError as error:
            self._report_loss(error)
        except ValueError:  # interrupted at the very end, when all was sent and the log closed
            return
        if not isinstance(event, Metrics):
            self._wakeup.set()

    def keep(self, name: str, write: Callable[[Path], Any]) -> str | None:
        """Have `write` make a file called `name`, for an event to name; None where it cannot be written."""
        if self.failure is not None:
            raise self.failure
        try:
            return self._event_log.keep(name, write)
        except OSError as error:
            self._report_loss(error)
            return None

    def finish(self, within: float | None = None) -> None:
        """Wait until everything is sent, or for a moment, where the store is away; `within`: seconds at most."""
        self._leave_at = time.monotonic() + LEAVE_AFTER
        self._finished.set()
        self._wakeup.set()
        self._thread.join(within)
        if self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        try:
            self._send_all()
        except DarkroomError as error:
            self.failure = error
            self._event_log.remove()

    def _send_all(self) -> None:
        upload: Upload | None = None
        while True:
            self._wakeup.clear()
            last = self._finished.is_set()  # asked before the log is read: nothing is added after it
            try:
                if upload is None:
                    self._store = Store()
                    _send_earlier(self._store)
                    upload = Upload(self._event_log, self._store, fresh=True)
                upload.advance()
                if last:
                    return self._event_log.remove()
            except (UnavailableError, OSError) as error:
                if last and time.monotonic() > self._leave_at:
                    return self._leave_for_later(first_line(error))
            self._wakeup.wait(SEND_EVERY)

    def _leave_for_later(self, reason: str) -> None:
        try:
            keep_outputs(self._event_log)
        except OSError as error:
            warn(f"{self._event_log.folder}: no room for the outputs ({error}); their files may be missing in the run")
        warn(f"{reason}; this run waits in {self._event_log.folder}; {LATER}")
        self._event_log.release()

    def _report_loss(self, error: OSError) -> None:
        if self._complete:
            self._complete = False
            warn(f"{self._event_log.folder}: cannot be written ({error}); this run will be incomplete")


def _send_earlier(store: Store) -> None:
    """Send what earlier stages could not."""
    try:
        done = replay(store)
    except DarkroomError as error:
        return warn(str(error))
    if done.sent:
        warn(f"runs of earlier stages sent now: {len(done.sent)}")
    if done.waiting:
        warn(f"{done.reason}; runs of earlier stages that wait in {outbox_folder()}: {done.waiting}; {LATER}")
    return None
