"""Where past runs are asked for: in a database on this machine, which is only read, or through MLflow, on a server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import without_password
from darkroom.tracking.database import Rows, Tables
from darkroom.tracking.records import current_record, resolve_artifacts
from darkroom.tracking.store import Store, first_line

RECENT = 100  # runs that are looked through where more match
CONTENT = "content"  # tag of a registered version: what it holds


@dataclass(frozen=True)
class Told:
    """What a store says of a run. Times in milliseconds since 1970."""

    id: str
    name: str
    status: str
    deleted: bool
    began: int
    ended: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    artifacts: str

    def meets(self, tags: Mapping[str, str], status: str) -> bool:
        """Whether it has these tags and this status."""
        return all(self.tags.get(key) == value for key, value in tags.items()) and status in ("", self.status)


class Source(Protocol):
    """Raises, in all methods:
    DarkroomError: the store does not answer.
    """

    @property
    def experiment(self) -> str:
        """The id of Darkroom's experiment; "" where there is none."""
        ...

    def search(self, tags: Mapping[str, str], status: str = "") -> list[Told]:
        """The recent runs with these tags and this status, newest first; deleted ones too."""
        ...

    def versions(self, digest: str) -> list[str]:
        """The registered versions of this content, in words, with their aliases."""
        ...

    def last_sign(self, run: str) -> int:
        """When a run last told a figure; 0 where it never did."""
        ...


class Local:
    """A database on this machine."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    @property
    def experiment(self) -> str:
        return "" if self.tables.experiment is None else str(self.tables.experiment)

    def search(self, tags: Mapping[str, str], status: str = "") -> list[Told]:
        return [self.told(run) for run in self.tables.runs(tags, status, RECENT)]

    def told(self, run: str) -> Told:
        """What the database says of a run that it has."""
        return told_by(self.tables, current_record(self.tables, "run", run, with_files=False).rows)

    def versions(self, digest: str) -> list[str]:
        return sorted(_version(*found) for found in self.tables.versions(CONTENT, digest))

    def last_sign(self, run: str) -> int:
        return self.tables.last_sign(run)


class Remote:
    """A store that MLflow is asked for."""

    def __init__(self, store: Store) -> None:
        self._store, self._client = store, store.client

    @property
    def experiment(self) -> str:
        return self._store.experiment

    def search(self, tags: Mapping[str, str], status: str = "") -> list[Told]:
        conditions = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        conditions += [f"attributes.status = '{status}'"] if status else []
        try:
            found = self._client.search_runs(
                [self._store.experiment],
                " and ".join(conditions),
                run_view_type=self._store.mlflow.entities.ViewType.ALL,
                max_results=RECENT,
                order_by=["attributes.start_time DESC"],
            )
        except self._store.mlflow.exceptions.MlflowException as error:
            address = without_password(self._store.address)
            raise DarkroomError(f"{address}: does not say which runs it holds ({first_line(error)})") from error
        return [_told(run) for run in found]

    def versions(self, digest: str) -> list[str]:
        names = []
        for version in self._client.search_model_versions(f"tags.{CONTENT} = '{digest}'"):
            aliases = self._client.get_registered_model(version.name).aliases
            names = [alias for alias, number in aliases.items() if str(number) == str(version.version)]
            names.append(_version(version.name, version.version, names))
        return sorted(names)

    def last_sign(self, run: str) -> int:
        histories = (self._client.get_metric_history(run, name) for name in self._client.get_run(run).data.metrics)
        return max((int(point.timestamp) for history in histories for point in history), default=0)


def told_by(tables: Tables, rows: Rows) -> Told:
    """What a run's rows say, as a record has them."""
    run = rows["runs"][0]
    return Told(
        id=run["run_uuid"],
        name=run["name"] or "",
        status=run["status"],
        deleted=run["lifecycle_stage"] != "active",
        began=int(run["start_time"] or 0),
        ended=run["end_time"],
        params={row["key"]: row["value"] for row in rows.get("params", [])},
        tags={row["key"]: row["value"] for row in rows.get("tags", [])},
        artifacts=resolve_artifacts(tables, str(run["artifact_uri"])),
    )


def _version(name: str, version: int | str, aliases: Sequence[str]) -> str:
    return f"{name} version {version}" + "".join(f" @{alias}" for alias in aliases)


def _told(run: Any) -> Told:
    info = run.info
    deleted = info.lifecycle_stage != "active"
    times = info.start_time, info.end_time
    return Told(
        info.run_id, info.run_name, info.status, deleted, *times, run.data.params, run.data.tags, info.artifact_uri
    )
