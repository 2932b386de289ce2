"""The SQL on MLflow's tables, and the schema that it is written for.

Would catch a newer MLflow whose tables nobody has looked at, tables that are read all the same, and a remedy that does
not bring an older database there.
"""

import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision

from darkroom.tracking import database, stage_run
from darkroom.tracking.availability import check_answers
from darkroom.tracking.database import MLFLOW, SCHEMA, Tables, name_experiment, put_back
from darkroom.tracking.schema import SchemaError, known_revisions
from tests.support.schemas import make_older


def remedy_of(message: str) -> list[str]:
    """The command that a message ends with, for this Python."""
    assert "\n" not in message
    command = message.partition("then run ")[2]
    assert command.startswith("mlflow db upgrade sqlite:///")
    return [sys.executable, "-m", *shlex.split(command)]


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A database of the schema before the latest, which is to stay as it is, and that schema."""
    file = tmp_path_factory.mktemp("older") / "mlflow.db"
    return file, make_older(f"sqlite:///{file}")


@pytest.mark.parametrize("named", [True, False], ids=["named", "the project's own"])
def test_a_stage_does_not_begin_on_an_older_database(
    named: bool, older: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a training whose first event fails, minutes after it began."""
    file = tmp_path / ".mlflow" / "mlflow.db"
    file.parent.mkdir()
    shutil.copyfile(older[0], file)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}" if named else "")
    monkeypatch.delenv("DARKROOM_TRACKING", raising=False)
    with (
        pytest.raises(SchemaError, match=rf"schema {older[1]}, older than {SCHEMA} of the MLflow") as caught,
        stage_run("a", {}, {}, {}, [], {}),
    ):
        pytest.fail("it began")
    assert remedy_of(str(caught.value))
    assert file.read_bytes() == older[0].read_bytes()


def test_an_older_database_is_not_read_and_its_remedy_works(older: tuple[Path, str], tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copyfile(older[0], file)
    with pytest.raises(SchemaError, match=rf"schema {older[1]}, older than {SCHEMA} of the MLflow") as caught:
        Tables(file)
    subprocess.run(remedy_of(str(caught.value)), capture_output=True, check=True)
    assert Tables(file).keys("run") == []
    check_answers(f"sqlite:///{file}")


def test_a_stage_does_not_begin_on_a_newer_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    monkeypatch.delenv("DARKROOM_TRACKING", raising=False)
    with (
        pytest.raises(SchemaError, match="does not know; install the Darkroom that goes with the MLflow that wrote it"),
        stage_run("a", {}, {}, {}, [], {}),
    ):
        pytest.fail("it began")


def test_the_schemas_are_those_that_mlflow_knows_and_are_told_without_importing_it() -> None:
    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    latest, known = known_revisions()
    assert latest == scripts.get_current_head()
    assert known == {one.revision for one in scripts.walk_revisions()}
    code = "import sys; from darkroom.tracking.schema import known_revisions as told; assert told()[0]; "
    subprocess.run([sys.executable, "-c", code + "assert 'mlflow' not in sys.modules"], check=True)


def test_nothing_is_written_into_tables_of_an_unknown_schema(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
        database.execute("CREATE TABLE runs (run_uuid TEXT)")
        database.execute("INSERT INTO runs VALUES ('a')")
    content = file.read_bytes()
    with pytest.raises(SchemaError, match="ffffffffffff"):
        put_back(file, "run", "a", {})
    with pytest.raises(SchemaError, match="ffffffffffff"):
        name_experiment(file, 1)
    assert file.read_bytes() == content


def test_the_known_schema_is_the_installed_mlflows() -> None:
    assert _get_latest_schema_revision() == SCHEMA
    assert mlflow.__version__.startswith(f"{MLFLOW}.")


def test_a_run_is_tracked_without_a_record_where_the_schema_is_unknown(
    project: Path, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a stage that fails at its end, for the sake of a record, once a newer MLflow is installed."""
    monkeypatch.setattr(database, "SCHEMA", "0")
    with stage_run("a", {}, {}, {}, [], {}) as run:
        pass
    assert run.id is not None
    assert f"no record of run {run.id}" in capsys.readouterr().err
    assert client.get_run(run.id).info.status == "FINISHED"
    assert not (project / ".darkroom").exists()
