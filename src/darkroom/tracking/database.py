"""MLflow's SQLite database without MLflow: made whole, followed where the project moves, read, and repaired.

The one file that holds SQL, and knows for which schema of MLflow's that SQL is written: a database of another schema is
neither read nor changed. Reading writes nothing, not beside the file either: it may lie where nobody may write.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import MOVE, artifacts_address, artifacts_folder, database_address, without_password
from darkroom.tracking.schema import QUESTION, SchemaError, check_schema

EXPERIMENT = "darkroom"
SCHEMA, MLFLOW = "dc11669786a5", "3.17"  # Alembic's revision of the tables below, and the MLflow whose latest it is
ARTIFACT_PATHS = (  # where MLflow's database holds absolute paths of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
OWN_MODELS = "(name = 'darkroom' OR name LIKE 'darkroom-%')"
Rows = dict[str, list[dict[str, Any]]]  # {table: rows}, each row {column: value}
BELONGS: Mapping[str, Mapping[str, str]] = {  # the rows of each table that belong to a thing of this kind, by its key
    "run": {
        "runs": "run_uuid = :key",
        "params": "run_uuid = :key",
        "latest_metrics": "run_uuid = :key",
        "metrics": "run_uuid = :key",
        "tags": "run_uuid = :key",
        "input_tags": "input_uuid IN (SELECT input_uuid FROM inputs WHERE destination_id = :key OR source_id = :key)",
        "datasets": "dataset_uuid IN (SELECT source_id FROM inputs WHERE destination_id = :key)",
        "inputs": "destination_id = :key OR source_id = :key",
    },
    "model": {
        "registered_models": "name = :key",
        "registered_model_tags": "name = :key",
        "registered_model_aliases": "name = :key",
    },
    "version": {  # its key: NAME/NUMBER
        "model_versions": "name || '/' || version = :key",
        "model_version_tags": "name || '/' || version = :key",
    },
    "copy": {  # the folder of a registered pipeline, which MLflow calls a logged model
        "logged_models": "model_id = :key",
        "logged_model_params": "model_id = :key",
        "logged_model_tags": "model_id = :key",
        "logged_model_metrics": "model_id = :key",
    },
    "experiment": {"experiments": "experiment_id = :key", "experiment_tags": "experiment_id = :key"},
}
LISTED = {  # the keys of all things of a kind that are Darkroom's
    "run": "SELECT run_uuid FROM runs WHERE experiment_id = :experiment",
    "model": f"SELECT name FROM registered_models WHERE {OWN_MODELS}",
    "version": f"SELECT name || '/' || version FROM model_versions WHERE {OWN_MODELS}",
    "copy": "SELECT model_id FROM logged_models WHERE experiment_id = :experiment",
}


def make(fill: Callable[[str, str], Any], database: Path) -> None:
    """Make MLflow's tables, which takes seconds; they appear when complete, for half made ones could not be used.

    fill: makes them, given the addresses of an empty database and of the folder of artifacts.
    """
    beside, complete = (database.with_name(f".{database.name}.{state}") for state in ("making", "made"))
    for left in database.parent.glob(f".{database.name}.*"):
        left.unlink()
    address = database_address(beside)
    fill(address, artifacts_address(database.with_name("artifacts")))
    if not beside.is_file():
        raise DarkroomError(f"{beside}: SQLAlchemy made its database elsewhere; {MOVE}")
    with closing(sqlite3.connect(beside)) as made, closing(sqlite3.connect(complete)) as copy:
        made.backup(copy)
    complete.replace(database)
    with suppress(PermissionError):  # on Windows, while MLflow still has it open
        beside.unlink()


def follow_project(folder: Path) -> None:
    """Where the project was moved or copied, have its store name the artifacts at their new place.

    MLflow notes absolute paths: it would show old runs without artifacts, and write those of new runs to the old place.
    """
    if not (folder / "mlflow.db").exists():
        return
    new = artifacts_address(folder / "artifacts")
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        found = database.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
        if found is None or found[0] == new:
            return
        _check_schema(database, folder / "mlflow.db")
        old = found[0]
        for table, column in ARTIFACT_PATHS:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE substr({column} || '/', 1, ?) = ? || '/' AND substr({column} || '/', 1, ?) != ? || '/'",
                (new, len(old) + 1, len(old) + 1, old, len(new) + 1, new),
            )


class Tables:
    """The rows of a database of MLflow's, as they are when they are asked for.

    Raises DarkroomError, as do all its methods: it cannot be read, or is not a database of MLflow's.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._database = self._opened()
            _check_schema(self._database, file)
        except sqlite3.Error as error:
            raise self._unreadable(error) from None
        found = self.ask("SELECT experiment_id, artifact_location FROM experiments WHERE name = :n", n=EXPERIMENT)
        self.experiment: int | None = found[0]["experiment_id"] if found else None
        self.location = str(found[0]["artifact_location"]) if found else ""

    def ask(self, question: str, **values: Any) -> list[dict[str, Any]]:
        """The rows that answer a question."""
        try:
            with closing(self._database.execute(question, values)) as found:
                names = [column[0] for column in found.description]
                return [dict(zip(names, row, strict=True)) for row in found]
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def rows(self, kind: str, key: str) -> Rows:
        """All that belongs to a thing; tables without a row of it are left out."""
        asked = ((table, f"SELECT * FROM {table} WHERE {which}") for table, which in BELONGS[kind].items())
        return {table: rows for table, question in asked if (rows := self.ask(question, key=key))}

    def keys(self, kind: str) -> list[str]:
        """The keys of all things of a kind that are Darkroom's."""
        return [str(next(iter(row.values()))) for row in self.ask(LISTED[kind], experiment=self.experiment)]

    def runs(self, tags: Mapping[str, str], status: str = "", most: int = -1) -> list[str]:
        """Ids of the runs with these tags and this status, newest first; deleted ones too."""
        numbered = list(enumerate(tags.items()))
        values = {f"k{i}": key for i, (key, _) in numbered} | {f"v{i}": value for i, (_, value) in numbered}
        conditions = [
            f"run_uuid IN (SELECT run_uuid FROM tags WHERE key = :k{i} AND value = :v{i})" for i, _ in numbered
        ]
        conditions += ["status = :status"] if status else []
        question = (
            f"SELECT run_uuid FROM runs WHERE {' AND '.join(['experiment_id = :experiment', *conditions])} "
            "ORDER BY start_time DESC, run_uuid LIMIT :most"
        )
        found = self.ask(question, experiment=self.experiment, status=status, most=most, **values)
        return [row["run_uuid"] for row in found]

    def lifecycle(self, run: str) -> str:
        """Whether a run is active or deleted; "" where there is no such run."""
        found = self.ask("SELECT lifecycle_stage FROM runs WHERE run_uuid = :run", run=run)
        return str(found[0]["lifecycle_stage"]) if found else ""

    def last_metric_at(self, run: str) -> int:
        """When a run last logged a metric, in milliseconds since 1970; 0 where it never did."""
        latest = self.ask("SELECT max(timestamp) AS last FROM metrics WHERE run_uuid = :run", run=run)
        return int(latest[0]["last"] or 0)

    def versions(self, tag: str, value: str) -> list[tuple[str, int, list[str]]]:
        """Name, number and aliases of the registered versions with this tag."""
        found = self.ask("SELECT name, version FROM model_version_tags WHERE key = :k AND value = :v", k=tag, v=value)
        asked = "SELECT alias FROM registered_model_aliases WHERE name = :name AND version = :version ORDER BY alias"
        return [(row["name"], row["version"], [one["alias"] for one in self.ask(asked, **row)]) for row in found]

    def aliased(self) -> set[str]:
        """The keys of the versions that some alias names."""
        found = self.ask("SELECT name || '/' || version AS key FROM registered_model_aliases")
        return {row["key"] for row in found}

    def keeps_runs_below(self, artifacts: str) -> bool:
        """Whether a run of Darkroom's keeps its artifacts below this place."""
        below = "SELECT 1 FROM runs WHERE experiment_id = :e AND substr(artifact_uri, 1, length(:a) + 1) = :a || '/'"
        return bool(self.ask(f"{below} LIMIT 1", e=self.experiment, a=artifacts))

    def _opened(self) -> sqlite3.Connection:
        """For reading alone; where a crashed writer left the file half written, it is first put right if it may be."""
        uri = self.file.absolute().as_uri()
        database = sqlite3.connect(f"{uri}?mode=ro", uri=True, check_same_thread=False)
        try:
            database.execute("SELECT version_num FROM alembic_version").fetchall()
            return database
        except sqlite3.OperationalError as error:
            database.close()
            if "no such table" in str(error):
                raise
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(self.file)) as writing:
            writing.execute("SELECT version_num FROM alembic_version").fetchall()
            return sqlite3.connect(f"{uri}?mode=ro", uri=True, check_same_thread=False)
        return sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, check_same_thread=False)

    def _unreadable(self, error: Exception) -> DarkroomError:
        return DarkroomError(
            f"the tracking store {without_password(database_address(self.file))} cannot be read ({error}); "
            "repair it or move it away, or set DARKROOM_TRACKING=off"
        )


def put_back(file: Path, kind: str, key: str, rows: Rows) -> None:
    """Have the database hold these rows of a thing, and no others."""
    with _changing(file) as database:
        for table, which in BELONGS[kind].items():
            database.execute(f"DELETE FROM {table} WHERE {which}", {"key": key})
        for table, wanted in rows.items():
            for row in wanted:
                columns, marks = ", ".join(row), ", ".join("?" * len(row))
                database.execute(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})", [*row.values()])


def name_experiment(file: Path, experiment: int) -> None:
    with _changing(file) as database:
        statement = "UPDATE experiments SET name = ?, lifecycle_stage = 'active' WHERE experiment_id = ?"
        database.execute(statement, (EXPERIMENT, experiment))


def moved_artifacts(file: Path, artifacts: Path, repair: bool) -> list[str]:
    """The paths of artifacts in a project's own store that name a folder elsewhere which is gone, and is here.

    repair: have the store name the folder below `artifacts` instead.
    """
    marker = f"/{artifacts.parent.name}/{artifacts.name}/"
    tables = Tables(file)
    found: dict[str, Path] = {}
    for table, column in ARTIFACT_PATHS:
        question = f"SELECT DISTINCT {column} AS path FROM {table} WHERE instr({column}, :marker)"
        paths = (row["path"] for row in tables.ask(question, marker=marker))
        found |= {path: moved for path in paths if (moved := moved_to(path, artifacts))}
    if repair and found:
        with _changing(file) as database:
            for table, column in ARTIFACT_PATHS:
                pairs = [(artifacts_address(moved), old) for old, moved in found.items()]
                database.executemany(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", pairs)
    return list(found)


def moved_to(address: str, artifacts: Path) -> Path | None:
    """Where in the project's artifacts a place is that names a folder elsewhere which is gone; None for any other."""
    was, marker = artifacts_folder(address), f"/{artifacts.parent.name}/{artifacts.name}/"
    moved = artifacts / address.rpartition(marker)[2]
    gone = was is not None and marker in address and was != moved and not was.exists() and moved.exists()
    return moved if gone else None


@contextmanager
def _changing(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(file)) as database, database:
        _check_schema(database, file)
        yield database


def _check_schema(database: sqlite3.Connection, file: Path) -> None:
    """Raises:
    SchemaError: names the schema found and the one that is known.
    """
    found = " ".join(str(row[0]) for row in database.execute(QUESTION))
    address = database_address(file)
    check_schema(found, address)
    if found != SCHEMA:
        raise SchemaError(
            f"the tracking store {without_password(address)} has MLflow's schema {found}, and its tables are known as "
            f"of {SCHEMA} (MLflow {MLFLOW}); install the Darkroom that goes with it, or MLflow {MLFLOW}"
        )
