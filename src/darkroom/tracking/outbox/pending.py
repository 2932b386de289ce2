"""The outbox of a project: the runs that its store has not had yet, and uploading them now."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import current_store, without_password
from darkroom.tracking.note import NOTE, broken_off
from darkroom.tracking.outbox.event_log import EventLog, outbox_folder, peek
from darkroom.tracking.outbox.events import End, Tags
from darkroom.tracking.outbox.upload import Upload
from darkroom.tracking.secrets import first_line
from darkroom.tracking.store import Store, UnavailableError

LATER = "the next stage that runs sends it, or darkroom audit --repair"


@dataclass(frozen=True)
class Pending:
    """A run that waits in the outbox.

    folder: its event log. began: milliseconds since 1970. store: the address it is meant for, "" the project's own.
    run: its id, where the store knows of it.
    """

    folder: Path
    stage: str
    began: int
    store: str
    run: str | None


@dataclass(frozen=True)
class Replayed:
    """What `replay` has done: ids of the runs that are whole in the store now, runs that wait on, and the first reason.

    Those that are meant for another store wait, too, and are not counted here; `pending` names them.
    """

    sent: tuple[str, ...]
    waiting: int
    reason: str


def pending() -> list[Pending]:
    """The runs that wait, oldest first, without those of stages at work. Opens no store, writes nothing."""
    if not outbox_folder().is_dir():
        return []
    try:
        found = [(folder, peek(folder)) for folder in sorted(outbox_folder().iterdir()) if folder.is_dir()]
    except OSError as error:
        raise DarkroomError(f"{outbox_folder()}: cannot be read ({error}); make it readable") from None
    return [Pending(folder, one[0].stage, one[0].time, one[0].store, one[1]) for folder, one in found if one]


def replay(store: Store) -> Replayed:
    """Send `store` the runs that wait for it, oldest first, and remove what has arrived.

    A run whose stage died without a word (kill -9) ends KILLED, at its last event. May be interrupted and
    repeated at any time: nothing is lost, and nothing is there twice. Leaves the stages at work alone, and the runs
    that are meant for another store than MLFLOW_TRACKING_URI names now.
    """
    sent: list[str] = []
    waiting, reason, unavailable = 0, "", False
    for event_log in _abandoned():
        try:
            if without_password(event_log.start.store) != current_store():
                continue
            if not unavailable:
                sent.append(_upload_all(event_log, store))
                continue
        except (DarkroomError, OSError) as error:
            reason, unavailable = reason or first_line(error), isinstance(error, UnavailableError)
        finally:
            event_log.release()
        waiting += 1
    return Replayed(tuple(sent), waiting, reason)


def _abandoned() -> Iterator[EventLog]:
    """The logs of stages that have ended, oldest first; each is to be released."""
    if not outbox_folder().is_dir():
        return
    try:
        for folder in sorted(path for path in outbox_folder().iterdir() if path.is_dir()):
            if event_log := EventLog.claim(folder):
                yield event_log
    except OSError as error:
        raise DarkroomError(f"{outbox_folder()}: cannot be read ({error}); make it readable and writable") from None


def _upload_all(event_log: EventLog, store: Store) -> str:
    """Upload all of a log and remove it; the run's id."""
    upload = Upload(event_log, store, fresh=False)
    upload.advance()
    if not event_log.ended:
        event_log.append(Tags({NOTE: broken_off("Its process ended without a word.")}))
        event_log.append(End("KILLED", max(getattr(event, "time", 0) for event, _ in event_log.events())))
        upload.advance()
    event_log.remove()
    assert event_log.run is not None
    return event_log.run
