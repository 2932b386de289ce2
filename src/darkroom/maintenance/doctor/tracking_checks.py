"""MLflow's store: whether it answers, lets us in, can be written, and has all that runs told it."""

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from darkroom.core.errors import DarkroomError
from darkroom.maintenance.doctor.result import Result, from_error, ok, problem, warning
from darkroom.tracking.address import database_file, is_on, is_server, location, tracking_uri, without_password
from darkroom.tracking.availability import check_answers
from darkroom.tracking.outbox.pending import pending
from darkroom.tracking.query import RunQuery, moved_artifacts, store_exists
from darkroom.tracking.schema import SchemaError, known_revisions, upgrade_command

REPAIR = "darkroom audit --repair"
LOCKED_FOR = 2.0  # seconds that another writer may take


def check_tracking() -> Iterator[Result]:
    """The store that MLFLOW_TRACKING_URI names, or the project's own."""
    try:
        if not is_on():
            yield warning("mlflow", "DARKROOM_TRACKING=off: nothing is recorded", "", "unset DARKROOM_TRACKING")
            return
        address = location()
        if tracking_uri() or store_exists():  # else it would be made
            check_answers(address)
        yield from _database(address)
        yield from _kept_back(address)
    except SchemaError as error:
        yield from_error("mlflow", error, _upgrade(location(), str(error)))
    except DarkroomError as error:
        yield from_error("mlflow", error)


def _database(address: str) -> Iterator[Result]:
    file = database_file(address)
    about = without_password(address)
    if is_server(address):
        yield ok("mlflow", f"{about} answers and lets us in")
    elif file is None:
        yield ok("mlflow", f"{about}, of the installed MLflow's schema")
    elif not store_exists():
        yield ok("mlflow", f"{file}: not there yet; the first stage makes it")
    else:
        runs = len(RunQuery().tables.keys("run"))  # type: ignore[union-attr]
        if reason := _why_read_only(file):
            found = f"{file}: cannot be written ({reason}): a stage would not start"
            yield problem("mlflow", found, "make it writable", f"chmod u+w {shlex.quote(str(file))}")
        else:
            yield ok("mlflow", f"{file}, {runs} runs, writable")


def _kept_back(address: str) -> Iterator[Result]:
    """What the store should know and does not."""
    if waiting := pending():
        first = f"first {waiting[0].stage}"
        yield warning("mlflow outbox", f"runs that wait to be sent: {len(waiting)}, {first}", "", REPAIR)
    if moved := moved_artifacts(repair=False):
        found = f"{moved} paths of artifacts name a folder that was moved: runs show no pictures"
        yield warning("mlflow artifacts", found, "", REPAIR)
    if database_file(address) is None or not store_exists():
        return
    query = RunQuery()
    stale = [run for run in query.running() if query.why_stale(run)]
    if stale:
        yield warning("mlflow runs", f"runs that count as running, but are not: {len(stale)}", "", REPAIR)


def _why_read_only(file: Path) -> str:
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=LOCKED_FOR)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
    except sqlite3.Error as error:
        return str(error)
    return ""


def _upgrade(address: str, said: str) -> str:
    """The command that brings an older database to the installed MLflow's schema; "" where it is not older."""
    if not any(f"schema {one}," in said and "older than" in said for one in known_revisions()[1]):
        return ""
    file = database_file(address)
    backup = f"cp {shlex.quote(str(file))} {shlex.quote(f'{file}.before')} && " if file else ""
    return f"{backup}{upgrade_command(address)}"
