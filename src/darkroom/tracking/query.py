"""Past runs, asked by what they read and wrote; and the few changes that an audit makes to the store."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from darkroom.tracking import database
from darkroom.tracking.address import FOLDER, database_file, is_shared, location, project_root, tracking_uri
from darkroom.tracking.availability import check_answers
from darkroom.tracking.database import Tables, follow_project
from darkroom.tracking.outbox.pending import Replayed, replay
from darkroom.tracking.process import is_running
from darkroom.tracking.record_sync import restore
from darkroom.tracking.records import RecordIndex, own_artifacts
from darkroom.tracking.sources import Local, RecordedRun, RegisteredVersion, Remote, run_of
from darkroom.tracking.store import AFTERWARDS, Store, run_page, web_address

SILENT_DAYS = 7.0  # after which a run of an unknown process counts as abandoned
DAY = 86_400_000  # milliseconds


def store_exists() -> bool:
    """Whether there is a store to ask: one on a server, or a database that is not an empty file."""
    file = database_file(location())
    return file is None or (file.is_file() and file.stat().st_size > 0)


def moved_artifacts(repair: bool) -> int:
    """How many paths of artifacts in the project's own store name a folder elsewhere that is gone and lies here.

    repair: write the paths in this project instead.
    """
    file = database_file(location())
    if tracking_uri() or file is None or not file.is_file():
        return 0
    return len(database.moved_artifacts(file, own_artifacts(), repair))


class RunQuery:
    """The store, for questions. A database on this machine is only read until there is something to change.

    Raises DarkroomError: it does not answer, or cannot be opened.
    """

    def __init__(self) -> None:
        self.address = location()
        file = database_file(self.address)
        if file is None:
            check_answers(self.address)
        self.tables = None if file is None else Tables(file)
        self.records = RecordIndex.read() if self.tables else RecordIndex({}, frozenset(), (), ())
        self._source = Local(self.tables) if self.tables else Remote(self._store)
        self._web_address = web_address(self.address)

    @cached_property
    def _store(self) -> Store:
        return Store()

    def follow(self) -> None:
        """Have the project's own store name its artifacts where the project lies now, and read it anew."""
        if self.tables is None:
            return
        if not tracking_uri():
            with FileLock(project_root() / FOLDER / "lock"):
                follow_project(project_root() / FOLDER)
        self.refresh()

    def refresh(self) -> None:
        """Read store and records anew, which were changed."""
        if self.tables is not None:
            self.tables = Tables(self.tables.file)
            self.records, self._source = RecordIndex.read(), Local(self.tables)

    def replay(self) -> Replayed:
        """Send the store the runs that wait in the project's outbox."""
        return replay(self._store)

    def runs(self, stage: str, outputs: Mapping[str, str]) -> list[RecordedRun]:
        """Runs of a stage, newest first, deleted ones too: the recent ones, and all that wrote the first output."""
        found = {run.id: run for run in self._search({"stage": stage})}
        for path, digest in list(outputs.items())[:1]:
            found |= {run.id: run for run in self._search({"stage": stage, f"out.{path}": digest})}
        return sorted(found.values(), key=lambda run: -run.began)

    def wrote(self, path: str, digest: str) -> RecordedRun | None:
        """The latest finished run that wrote `path` with this content."""
        return next((run for run in self._search({f"out.{path}": digest}) if run.good), None)

    def called(self, text: str) -> list[RecordedRun]:
        """The runs that a text means: those whose id it begins, or the newest one of the stage of that name."""
        newest = [run for run in self._search({"stage": text}) if not run.deleted][:1]
        return newest or list(self._source.called(text))

    def series(self, run: RecordedRun) -> dict[str, list[tuple[int, float]]]:
        """The points (step, value) of each curve of a run."""
        return self._source.series(run.id)

    def folder(self, run: RecordedRun) -> Path | None:
        """Where the files that a run keeps can be read, copied there from a server; None where that cannot be."""
        return self._source.folder(run)

    def running(self) -> list[RecordedRun]:
        """Runs that are not over, as far as the store knows."""
        return [run for run in self._search({}, "RUNNING") if not run.deleted]

    def why_stale(self, run: RecordedRun) -> str | None:
        """Why a run that is not over will never be; None where its process lives, or may."""
        shared = is_shared(self.address)
        alive = is_running(run.tags, shared)
        if alive is not None:
            return None if alive else "its process is gone"
        latest = next((one for one in self._search({"stage": run.stage}) if not one.deleted), run)
        if not shared and latest.id != run.id:
            return f"a newer run of {run.stage} began after it"
        days = (time.time() * 1000 - max(run.began, self._source.last_metric_at(run.id))) / DAY
        return f"nothing was heard of it for {days:.0f} days" if days > SILENT_DAYS else None

    def versions(self, digest: str) -> list[str]:
        return self._source.versions(digest)

    def registered(self) -> list[RegisteredVersion]:
        """Every version of Darkroom's models."""
        return self._source.registered()

    def run(self, run: str) -> RecordedRun | None:
        """A run by its id; None where the store on this machine has none, or it is another's."""
        rows = self.tables.rows("run", run) if self.tables else {}
        return run_of(self.tables, rows) if self.tables and rows.get("runs") else None

    def kill(self, run: RecordedRun, reason: str) -> None:
        self._store.set_tags(run.id, {"mlflow.note.content": f"### Broken off\n\nClosed by an audit: {reason}.\n"})
        self._store.end_run(run.id, "KILLED")

    def restore(self, run: RecordedRun, find: Callable[[str], Path | None]) -> None:
        """Bring a deleted run back; `find`: see `record_sync.restore`."""
        if run.gone and self.tables is not None:
            restore(self.tables, self.records.latest["run", run.id], find)
        else:
            self._store.client.restore_run(run.id)

    def record(
        self, stage: str, params: Mapping[str, Any], inputs: Mapping[str, str], outputs: Mapping[str, str], what: str
    ) -> None:
        """Note a finished run for contents that are there; `what` says how it comes that an audit does."""
        tags = {
            "stage": stage,
            AFTERWARDS: what,
            **{f"in.{path}": digest for path, digest in inputs.items()},
            **{f"out.{path}": digest for path, digest in outputs.items()},
            "mlflow.note.content": f"Recorded afterwards by `darkroom audit`: {what}.\n",
        }
        run = self._store.create_run(f"{stage} ({what})", time.time_ns() // 1_000_000, params, tags)
        self._store.log_inputs(run, inputs)
        self._store.end_run(run, "FINISHED")

    def _search(self, tags: Mapping[str, str], status: str = "") -> list[RecordedRun]:
        """Runs that meet a condition, newest first; where a run has a record, that decides."""
        found = [run for run in self._source.search(tags, status) if ("run", run.id) not in self.records.latest]
        if self.tables is not None:
            for (kind, key), record in self.records.latest.items():
                if kind == "run" and (run := run_of(self.tables, record.rows)).meets(tags, status):
                    state = self.tables.lifecycle(key)
                    deleted = run.deleted or state != "active"
                    found.append(replace(run, recorded=True, deleted=deleted, gone=not state))
        pages = f"{self._web_address}/"
        linked = (replace(run, link=pages + run_page(self._source.experiment, run.id)) for run in found)
        return sorted(linked, key=lambda run: -run.began)
