"""The project's own database of runs: made whole, and following the project where that is moved."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import MOVE, artifacts_address, database_address

EXPERIMENT = "darkroom"
ARTIFACT_PATHS = (  # where MLflow's database holds absolute paths of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def make(fill: Callable[[str, str], Any], database: Path) -> None:
    """Make MLflow's tables, which takes seconds; they appear when complete, for half made ones could not be used.

    fill: makes them, given the addresses of an empty database and of the folder of artifacts.
    """
    beside, whole = (database.with_name(f".{database.name}.{state}") for state in ("making", "made"))
    for left in database.parent.glob(f".{database.name}.*"):
        left.unlink()
    address = database_address(beside)
    fill(address, artifacts_address(database.with_name("artifacts")))
    if not beside.is_file():
        raise DarkroomError(f"{beside}: SQLAlchemy made its database elsewhere; {MOVE}")
    with closing(sqlite3.connect(beside)) as made, closing(sqlite3.connect(whole)) as copy:
        made.backup(copy)
    whole.replace(database)
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
        old = found[0]
        for table, column in ARTIFACT_PATHS:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )
