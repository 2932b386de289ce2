"""Where past runs are asked for: in a database on this machine, which is only read, or through MLflow, on a server.

Whatever is asked, the store may not answer, which is a DarkroomError.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import artifacts_folder, without_password
from darkroom.tracking.database import Rows, Tables
from darkroom.tracking.records import current_record, resolve_artifacts
from darkroom.tracking.repository import NO_REPOSITORY
from darkroom.tracking.run import COPY
from darkroom.tracking.secrets import first_line
from darkroom.tracking.store import AFTERWARDS, Store

RECENT = 100  # runs that are looked through where more match
DELETED = "Deleted_Internal"  # stage of a version that MLflow keeps the row of
ID_LENGTH = 32  # digits of a run's id
CONTENT = "content"  # tag of a registered version: what it holds


@dataclass(frozen=True)
class RecordedRun:
    """A run: as its record has it, where there is one (`recorded`), else as the store does.

    began, ended: milliseconds since 1970. link: its page, while the user interface runs. gone: the store has no such
    run any more, its record alone. inputs, outputs: {path: DVC's hash}.
    """

    id: str
    stage: str
    status: str
    deleted: bool
    began: int
    ended: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    artifacts: str
    link: str = ""
    recorded: bool = False
    gone: bool = False

    def meets(self, tags: Mapping[str, str], status: str) -> bool:
        """Whether it has these tags and this status; "": any."""
        return all(self.tags.get(key) == value for key, value in tags.items()) and status in ("", self.status)

    @property
    def inputs(self) -> dict[str, str]:
        return self._tags_under("in.")

    @property
    def outputs(self) -> dict[str, str]:
        return self._tags_under("out.")

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

    def _tags_under(self, prefix: str) -> dict[str, str]:
        return {key[len(prefix) :]: value for key, value in self.tags.items() if key.startswith(prefix)}


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model.

    content: DVC's hash of what it holds; "" where that is not said. run: id of the one that made it. source: where its
    files are, as MLflow has it.
    """

    name: str
    number: str
    content: str
    run: str
    source: str
    aliases: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.name}/{self.number}"


class Local:
    """A database on this machine."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.experiment = "" if tables.experiment is None else str(tables.experiment)

    def search(self, tags: Mapping[str, str], status: str = "") -> list[RecordedRun]:
        """The recent runs with these tags and this status, newest first; deleted ones too."""
        found = self.tables.runs(tags, status, RECENT)
        return [run_of(self.tables, current_record(self.tables, "run", run, with_files=False).rows) for run in found]

    def called(self, beginning: str) -> list[RecordedRun]:
        """The runs whose id begins so, deleted ones too."""
        found = [run for run in self.tables.keys("run") if run.startswith(beginning)]
        return [run_of(self.tables, self.tables.rows("run", run)) for run in found]

    def series(self, run: str) -> dict[str, list[tuple[int, float]]]:
        """The points (step, value) of each curve of a run."""
        question = "SELECT key, step, value FROM metrics WHERE run_uuid = :run ORDER BY key, step, timestamp"
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self.tables.ask(question, run=run):
            found.setdefault(row["key"], []).append((int(row["step"]), float(row["value"])))
        return found

    def folder(self, run: RecordedRun) -> Path | None:
        """Where the files that a run keeps can be read; None where that cannot be."""
        return artifacts_folder(run.artifacts)

    def versions(self, digest: str) -> list[str]:
        """The registered versions of this content, in words, with their aliases."""
        return sorted(_version(*found) for found in self.tables.versions(CONTENT, digest))

    def registered(self) -> list[RegisteredVersion]:
        """Every version of Darkroom's models."""
        found = (_registered(self.tables, key) for key in self.tables.keys("version"))
        return [version for version in found if version is not None]

    def last_metric_at(self, run: str) -> int:
        """When a run last logged a metric; 0 where it never did."""
        return self.tables.last_metric_at(run)


class Remote:
    """A store that MLflow is asked for; methods as `Local`."""

    def __init__(self, store: Store) -> None:
        self._store, self._client, self.experiment = store, store.client, store.experiment

    def search(self, tags: Mapping[str, str], status: str = "") -> list[RecordedRun]:
        conditions = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        conditions += [f"attributes.status = '{status}'"] if status else []
        try:
            found = self._client.search_runs(
                [self.experiment],
                " and ".join(conditions),
                run_view_type=self._store.mlflow.entities.ViewType.ALL,
                max_results=RECENT,
                order_by=["attributes.start_time DESC"],
            )
        except self._store.mlflow.exceptions.MlflowException as error:
            address = without_password(self._store.address)
            raise DarkroomError(f"{address}: does not say which runs it holds ({first_line(error)})") from error
        return [_run(run.info, run.data.params, run.data.tags) for run in found]

    def called(self, beginning: str) -> list[RecordedRun]:
        if len(beginning) < ID_LENGTH:
            return [run for run in self.search({}) if run.id.startswith(beginning)]
        try:
            run = self._client.get_run(beginning)
        except self._store.mlflow.exceptions.MlflowException:
            return []
        return [_run(run.info, run.data.params, run.data.tags)]

    def series(self, run: str) -> dict[str, list[tuple[int, float]]]:
        names = self._client.get_run(run).data.metrics
        histories = {name: self._client.get_metric_history(run, name) for name in sorted(names)}
        return {name: [(point.step, point.value) for point in points] for name, points in histories.items()}

    def folder(self, run: RecordedRun) -> Path | None:
        target = tempfile.mkdtemp(prefix="darkroom-run-")
        return Path(self._client.download_artifacts(run.id, "", target))

    def versions(self, digest: str) -> list[str]:
        names = []
        for version in self._client.search_model_versions(f"tags.{CONTENT} = '{digest}'"):
            aliases = self._client.get_registered_model(version.name).aliases
            own_aliases = [alias for alias, number in aliases.items() if str(number) == str(version.version)]
            names.append(_version(version.name, version.version, own_aliases))
        return sorted(names)

    def registered(self) -> list[RegisteredVersion]:
        """Every version of Darkroom's models."""
        try:
            models = self._client.search_registered_models("name LIKE 'darkroom%'")
            found = self._client.search_model_versions("name LIKE 'darkroom%'")
        except self._store.mlflow.exceptions.MlflowException as error:
            address = without_password(self._store.address)
            raise DarkroomError(f"{address}: does not say what is registered ({first_line(error)})") from error
        by_name = {model.name: model.aliases for model in models}
        return [
            RegisteredVersion(
                one.name,
                str(one.version),
                one.tags.get(CONTENT, ""),
                one.run_id or "",
                one.source,
                tuple(a for a, number in by_name.get(one.name, {}).items() if str(number) == str(one.version)),
            )
            for one in found
        ]

    def last_metric_at(self, run: str) -> int:
        histories = (self._client.get_metric_history(run, name) for name in self._client.get_run(run).data.metrics)
        return max((int(point.timestamp) for history in histories for point in history), default=0)


def run_of(tables: Tables, rows: Rows) -> RecordedRun:
    run = rows["runs"][0]
    tags = {row["key"]: row["value"] for row in rows.get("tags", [])}
    return RecordedRun(
        id=run["run_uuid"],
        stage=str(tags.get("stage") or run["name"] or ""),
        status=run["status"],
        deleted=run["lifecycle_stage"] != "active",
        began=int(run["start_time"] or 0),
        ended=run["end_time"],
        params={row["key"]: row["value"] for row in rows.get("params", [])},
        tags=tags,
        artifacts=resolve_artifacts(tables, str(run["artifact_uri"])),
    )


def _run(info: Any, params: Mapping[str, str], tags: Mapping[str, str]) -> RecordedRun:
    return RecordedRun(
        id=info.run_id,
        stage=tags.get("stage") or str(info.run_name),
        status=info.status,
        deleted=info.lifecycle_stage != "active",
        began=info.start_time,
        ended=info.end_time,
        params=params,
        tags=tags,
        artifacts=info.artifact_uri,
    )


def _registered(tables: Tables, key: str) -> RegisteredVersion | None:
    """None of one that was deleted, of which MLflow keeps the row."""
    rows = tables.rows("version", key)
    version = rows["model_versions"][0]
    if version["current_stage"] == DELETED:
        return None
    tags = {row["key"]: row["value"] for row in rows.get("model_version_tags", [])}
    name, number = str(version["name"]), str(version["version"])
    aliases = tables.rows("model", name).get("registered_model_aliases", [])
    return RegisteredVersion(
        name,
        number,
        str(tags.get(CONTENT, "")),
        str(version["run_id"] or ""),
        str(version["source"] or ""),
        tuple(str(row["alias"]) for row in aliases if str(row["version"]) == number),
    )


def _version(name: str, version: int | str, aliases: Sequence[str]) -> str:
    return f"{name} version {version}" + "".join(f" @{alias}" for alias in aliases)
