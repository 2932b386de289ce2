"""Uploads an event log to the store: in order, resuming where the last attempt stopped."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import without_password
from darkroom.tracking.outbox.event_log import EventLog
from darkroom.tracking.outbox.events import Begin, End, Event, File, Metrics, Outputs, Parameters, Picture, Tags
from darkroom.tracking.outputs import log_outputs
from darkroom.tracking.secrets import first_line
from darkroom.tracking.store import Metric, Store, UnavailableError, is_transient, warn

BATCH = 1000  # points sent in one call
KEY = "journal"  # the tag by which a run is found whose start was sent and whose id never came back


class Upload:
    """One event log on its way to a store.

    An event may be sent twice, where nobody knows whether it had arrived; it then replaces itself: points of curves
    with equal step, time and value are one to MLflow, files and tags are written over, and the run is found by its key.
    """

    def __init__(self, event_log: EventLog, store: Store, fresh: bool) -> None:
        """`fresh`: the stage is at work, and nothing was sent before."""
        self._event_log, self._store, self._fresh = event_log, store, fresh
        self._begun_before = not fresh

    def advance(self) -> None:
        """Send all that the log holds now; what the store refuses for good is left out, with a warning.

        Raises UnavailableError: the store does not answer; may be called again. DarkroomError: the store takes no run.
        """
        for events, after in _batches(self._event_log):
            try:
                self._send(events)
            except Exception as error:
                if is_transient(error, was_open=self._event_log.run is not None):
                    self._begun_before = True
                    raise UnavailableError(self._store.unavailable(error)) from error
                if self._event_log.run is None:
                    raise DarkroomError(
                        f"no run can be begun in {without_password(self._store.address)} ({first_line(error)}); "
                        "repair it, or set DARKROOM_TRACKING=off"
                    ) from error
                warn(f"{without_password(self._store.address)} does not take a record: {first_line(error)}")
            ended = self._event_log.ended or any(isinstance(event, End) for event in events)
            self._event_log.save_progress(self._event_log.run, after, ended)
            for event in events:
                if isinstance(event, File | Picture):
                    self._event_log.drop(event.file)

    def _send(self, events: Sequence[Event | None]) -> None:
        first = events[0]
        if isinstance(first, Begin):
            return self._start_run(first)
        store, folder, run = self._store, self._event_log.folder, self._event_log.run
        assert run is not None  # the first event of a log is Begin
        if isinstance(first, Metrics):
            store.log_metrics(run, list(_points(events)))
        elif isinstance(first, Parameters):
            store.log_params(run, first.params)
        elif isinstance(first, Tags):
            store.set_tags(run, first.tags)
        elif isinstance(first, File | Picture):
            if not (folder / first.file).exists():  # it was sent
                return None
            stands_in = Path(first.name).parent.as_posix() if isinstance(first, File) else first.name
            store.log_file(run, folder / first.file, stands_in)
            if isinstance(first, Picture):
                store.log_picture_at(run, folder / first.file, first.name, first.step, first.time)
        elif isinstance(first, Outputs):
            log_outputs(store, run, first, folder, self._fresh)
        elif isinstance(first, End):
            store.end_run(run, first.status, first.time)
        else:
            warn(f"{folder}: a line that cannot be read is left out")
        return None

    def _start_run(self, start: Begin) -> None:
        event_log, store = self._event_log, self._store
        run = event_log.run or (store.find_run(KEY, event_log.key) if self._begun_before else None)
        if run is None:
            run = store.create_run(start.stage, start.time, start.params, {**start.tags, KEY: event_log.key})
        else:
            store.log_params(run, start.params)
        store.log_inputs(run, start.inputs)
        event_log.save_progress(run, event_log.sent, ended=False)


def _batches(event_log: EventLog) -> Iterator[tuple[list[Event | None], int]]:
    """What the store does not have, in portions to be sent at once, each with what `sent` is after it."""
    metrics: list[Event | None] = []
    size, end = 0, event_log.sent
    for event, after in event_log.unsent():
        if metrics and (not isinstance(event, Metrics) or size + len(event.values) > BATCH):
            yield metrics, end
            metrics, size = [], 0
        if isinstance(event, Metrics):
            metrics.append(event)
            size += len(event.values)
        else:
            yield [event], after
        end = after
    if metrics:
        yield metrics, end


def _points(events: Sequence[Event | None]) -> Iterator[Metric]:
    for event in events:
        if isinstance(event, Metrics):
            for name, value in event.values.items():
                yield Metric(name, value, event.time, event.step)
