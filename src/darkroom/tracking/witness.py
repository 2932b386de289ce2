"""What the store tells of past runs, asked by their content; and the few words an audit may add to it."""

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import (
    FOLDER,
    artifacts_address,
    artifacts_folder,
    database_file,
    is_server,
    location,
    named,
    project_root,
    shown,
)
from darkroom.tracking.database import ARTIFACT_PATHS
from darkroom.tracking.journal import Replayed, replay
from darkroom.tracking.process import is_running
from darkroom.tracking.repository import NO_REPOSITORY
from darkroom.tracking.run import COPY
from darkroom.tracking.store import AFTERWARDS, Store, check_answers, first_line

RECENT = 100  # runs of a stage that are looked through where none is found by content
SILENT_DAYS = 7.0  # after which a run of an unknown process counts as abandoned
DAY = 86_400_000  # milliseconds


@dataclass(frozen=True)
class Seen:
    """A run. Times in milliseconds since 1970; inputs and outputs: {path: DVC's hash}."""

    id: str
    stage: str
    status: str
    deleted: bool
    began: int
    ended: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    artifacts: str
    link: str  # its page, while the user interface runs

    @property
    def inputs(self) -> dict[str, str]:
        return self._named("in.")

    @property
    def outputs(self) -> dict[str, str]:
        return self._named("out.")

    @property
    def commit(self) -> str:
        return self.tags.get("mlflow.source.git.commit", "")

    @property
    def dirty(self) -> bool:
        return self.tags.get("git.dirty") == "true"

    @property
    def why_unknown(self) -> str:
        """Why the commit, or whether files differed from it, is not known; empty where both are."""
        return self.tags.get("git.unknown", "" if self.commit else NO_REPOSITORY)

    @property
    def profile(self) -> dict[str, str]:
        return dict(json.loads(self.tags.get("profile", "{}")))

    @property
    def afterwards(self) -> str:
        """What an audit recorded with this run; empty where a stage did."""
        return self.tags.get(AFTERWARDS, "")

    @property
    def in_copy(self) -> bool:
        """Whether it worked in a copy of the project, so that it replaced nothing in the project itself."""
        return self.tags.get(COPY) == "true"

    @property
    def good(self) -> bool:
        return self.status == "FINISHED" and not self.deleted

    def _named(self, prefix: str) -> dict[str, str]:
        return {key[len(prefix) :]: value for key, value in self.tags.items() if key.startswith(prefix)}


def store_exists() -> bool:
    """Whether there is a store to ask: one on a server, or a database that is no empty file."""
    file = database_file(location())
    return file is None or (file.is_file() and file.stat().st_size > 0)


class Witness:
    """The open store, for questions.

    Raises:
        DarkroomError: it does not answer, or cannot be opened.
    """

    def __init__(self) -> None:
        address = location()
        if is_server(address):
            check_answers(address)
        self._store = Store()
        self.address, self._web_address = self._store.address, self._store.web_address()

    def replay(self) -> Replayed:
        """Send the store the runs that wait for it in the project's journal."""
        return replay(self._store)

    def runs(self, stage: str, outputs: Mapping[str, str]) -> list[Seen]:
        """Runs of a stage, newest first, deleted ones too: the recent ones, and all that wrote the first output."""
        found = {seen.id: seen for seen in self._search(f"tags.stage = '{stage}'")}
        for path, digest in list(outputs.items())[:1]:
            wrote = self._search(f"tags.stage = '{stage}' and tags.`out.{path}` = '{digest}'")
            found |= {seen.id: seen for seen in wrote}
        return sorted(found.values(), key=lambda seen: -seen.began)

    def wrote(self, path: str, digest: str) -> Seen | None:
        """The latest finished run that wrote `path` with this content."""
        return next((seen for seen in self._search(f"tags.`out.{path}` = '{digest}'") if seen.good), None)

    def running(self) -> list[Seen]:
        """Runs that are not over, as far as the store knows."""
        return [seen for seen in self._search("attributes.status = 'RUNNING'") if not seen.deleted]

    def why_stale(self, seen: Seen) -> str | None:
        """Why a run that is not over will never be; None where its process lives, or may."""
        shared = is_server(self.address)
        alive = is_running(seen.tags, shared)
        if alive is not None:
            return None if alive else "its process is gone"
        latest = next((one for one in self._search(f"tags.stage = '{seen.stage}'") if not one.deleted), seen)
        if not shared and latest.id != seen.id:
            return f"a newer run of {seen.stage} began after it"
        days = (time.time() * 1000 - self._last_sign(seen)) / DAY
        return f"nothing was heard of it for {days:.0f} days" if days > SILENT_DAYS else None

    def versions(self, digest: str) -> list[str]:
        """The registered versions of this content, in words, with their aliases."""
        found = self._store.client.search_model_versions(f"tags.content = '{digest}'")
        names = []
        for version in found:
            aliases = self._store.client.get_registered_model(version.name).aliases
            given = [alias for alias, number in aliases.items() if str(number) == str(version.version)]
            names.append(f"{version.name} version {version.version}" + "".join(f" @{alias}" for alias in given))
        return sorted(names)

    def kill(self, seen: Seen, reason: str) -> None:
        """Close a run that is not over."""
        self._store.set_tags(seen.id, {"mlflow.note.content": f"### Broken off\n\nClosed by an audit: {reason}.\n"})
        self._store.end_run(seen.id, "KILLED")

    def restore(self, seen: Seen) -> None:
        """Bring a deleted run back."""
        self._store.client.restore_run(seen.id)

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

    def _search(self, condition: str) -> list[Seen]:
        """Runs that meet a condition, newest first."""
        try:
            found = self._store.client.search_runs(
                [self._store.experiment],
                condition,
                run_view_type=self._store.mlflow.entities.ViewType.ALL,
                max_results=RECENT,
                order_by=["attributes.start_time DESC"],
            )
        except self._store.mlflow.exceptions.MlflowException as error:
            raise DarkroomError(
                f"{shown(self.address)}: does not say which runs it holds ({first_line(error)})"
            ) from error
        return [self._seen(run) for run in found]

    def _seen(self, run: Any) -> Seen:
        info, tags = run.info, run.data.tags
        return Seen(
            id=info.run_id,
            stage=tags.get("stage", info.run_name),
            status=info.status,
            deleted=info.lifecycle_stage != "active",
            began=info.start_time,
            ended=info.end_time,
            params=run.data.params,
            tags=tags,
            artifacts=info.artifact_uri,
            link=f"{self._web_address}/{self._store.run_link(info.run_id)}",
        )

    def _last_sign(self, seen: Seen) -> int:
        """When something was last heard of a run."""
        client = self._store.client
        histories = (client.get_metric_history(seen.id, name) for name in client.get_run(seen.id).data.metrics)
        return max([seen.began, *(int(point.timestamp) for history in histories for point in history)])


def stray_artifacts(mend: bool) -> int:
    """How many places of artifacts the project's own store gives that lie elsewhere, where no such folder is any more.

    mend: name the place in this project instead, where the files are there.
    """
    root = project_root() / FOLDER
    if named() or not (root / "mlflow.db").is_file():
        return 0
    new, strays = root / "artifacts", 0
    marker = f"/{FOLDER}/artifacts/"
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        for table, column in ARTIFACT_PATHS:
            found = database.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE '%{marker}%'")
            for (old,) in found.fetchall():
                was = artifacts_folder(old)
                moved = new / old.rpartition(marker)[2]
                if was is None or was.exists() or was == moved or not moved.exists():
                    continue
                strays += 1
                if mend:
                    there = artifacts_address(moved)
                    database.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (there, old))
    return strays
