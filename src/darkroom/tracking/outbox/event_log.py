"""One run as it waits on disk: the stage's events, the files that belong to it, and how much of it the store has."""

import itertools
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import FOLDER, project_root
from darkroom.tracking.outbox.events import Begin, Event, from_line, to_line

EVENTS, PROGRESS, FILES, LOCK = "events.jsonl", "progress.json", "files", "lock"


def outbox_folder() -> Path:
    """Where the event logs lie."""
    return project_root() / FOLDER / "journal"


class EventLog:
    """A folder in the outbox, held by one process; the death of that process sets it free.

    Each event is one write, so that a stage that is killed leaves all its events, but for a torn last line.
    """

    def __init__(self, folder: Path, start: Begin, lock: FileLock) -> None:
        """Use `create` or `claim`."""
        self.folder, self.start = folder, start
        self.run: str | None = None  # the run's id, once the store has it
        self.sent = 0  # bytes of events that the store has
        self.ended = False  # whether the run's end is among them
        self._lock, self._writing, self._names = lock, threading.Lock(), itertools.count()
        self._file = (folder / EVENTS).open("ab", buffering=0)
        with suppress(OSError, ValueError):  # nothing sent, or cut off by a power failure: all is sent again
            progress = json.loads((folder / PROGRESS).read_text())
            self.run, self.sent, self.ended = progress["run"], progress["sent"], progress["ended"]

    @classmethod
    def create(cls, start: Begin) -> "EventLog":
        """A new log that says how the run begins."""
        folder = outbox_folder() / f"{start.time:013d}-{start.stage}-{uuid.uuid4().hex[:8]}"
        try:
            with _all_locked():
                folder.mkdir()
                lock = _lock(folder)
                lock.acquire()
                (folder / EVENTS).write_bytes(to_line(start))
            return cls(folder, start, lock)
        except OSError as error:
            raise DarkroomError(
                f"{folder.parent}: the tracking outbox cannot be written ({error}); make it writable, or set "
                "DARKROOM_TRACKING=off"
            ) from None

    @classmethod
    def claim(cls, folder: Path) -> "EventLog | None":
        """The log that a stage has left in `folder`; None where a living process holds it, or nothing is in it.

        Raises OSError: it cannot be read or written.
        """
        with _all_locked():
            lock = _lock(folder)
            if not folder.is_dir():
                return None
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return None
            start = _cut_torn_line(folder / EVENTS)
            if start is None:
                shutil.rmtree(folder)
                lock.release()
                return None
        return cls(folder, start, lock)

    @property
    def key(self) -> str:
        """What tells this run from all others."""
        return self.folder.name

    def append(self, event: Event) -> None:
        """Note an event; in microseconds.

        Raises OSError: it is not noted, for the disk is full or the like; those before and after it are whole.
        """
        line = to_line(event)
        with self._writing:
            before = os.fstat(self._file.fileno()).st_size
            n_written = 0
            try:
                n_written = self._file.write(line)
                if n_written != len(line):
                    raise OSError("no space left")
            finally:
                if 0 < n_written < len(line):
                    os.ftruncate(self._file.fileno(), before)

    def keep(self, name: str, write: Callable[[Path], Any]) -> str:
        """Have `write` make a file called `name`; where it lies, as events name it.

        Raises OSError: it cannot be written.
        """
        file = Path(FILES, str(next(self._names)), name)
        (self.folder / file.parent).mkdir(parents=True)
        write(self.folder / file)
        return file.as_posix()

    def events(self, start: int = 0) -> Iterator[tuple[Event | None, int]]:
        """The events from the byte `start` on, each with the byte where it ends; None for one that cannot be read."""
        end = start
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):  # the stage is writing it
                    return
                end += len(line)
                yield from_line(line), end

    def unsent(self) -> Iterator[tuple[Event | None, int]]:
        return self.events(self.sent)

    def save_progress(self, run: str | None, sent: int, ended: bool) -> None:
        """Note how much of it the store has."""
        self.run, self.sent, self.ended = run, sent, ended
        beside = self.folder / f".{PROGRESS}"
        beside.write_text(json.dumps({"run": run, "sent": sent, "ended": ended}))
        beside.replace(self.folder / PROGRESS)

    def drop(self, file: str) -> None:
        shutil.rmtree((self.folder / file).parent, ignore_errors=True)

    def remove(self) -> None:
        """Delete it all: the store has it, or never will."""
        with _all_locked():
            (self.folder / EVENTS).unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def release(self) -> None:
        self._file.close()
        self._lock.release()


def peek(folder: Path) -> tuple[Begin, str | None] | None:
    """How a run began that a stage has left in `folder`, and its id where the store has it; nothing is written.

    None where a living process holds it, or nothing is in it. Raises OSError: it cannot be read.
    """
    try:
        with (folder / EVENTS).open("rb") as file:
            start = from_line(file.readline())
        if not isinstance(start, Begin) or _is_held(folder / LOCK):
            return None
    except FileNotFoundError:
        return None
    run: str | None = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        run = json.loads((folder / PROGRESS).read_text())["run"]
    return start, run


def _is_held(lock: Path) -> bool:
    """Whether a living process holds a lock, asked without taking it."""
    try:
        import fcntl
    except ImportError:  # on Windows, where a file that is held cannot be opened for writing
        try:
            lock.open("r+b").close()
        except PermissionError:
            return True
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
        return False


def _all_locked() -> FileLock:
    """Nobody sees a log half made or half deleted."""
    outbox_folder().mkdir(parents=True, exist_ok=True)
    return FileLock(outbox_folder() / LOCK, thread_local=False)


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / LOCK, thread_local=False)  # taken by the stage, released by the thread that sends


def _cut_torn_line(events: Path) -> Begin | None:
    """Cut a torn last line off; how the run began, or None where nothing says so."""
    try:
        with events.open("r+b") as file:
            start = from_line(file.readline())
            file.seek(0)
            file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
    except FileNotFoundError:
        return None
    return start if isinstance(start, Begin) else None
