"""The SQL on MLflow's tables, and the schema that it is written for.

Would catch a newer MLflow whose tables nobody has looked at, tables that are read all the same, and a remedy that does
not bring an older database there.
"""

import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow.store.db.utils import _get_latest_schema_revision

from darkroom.tracking import database, stage_run
from darkroom.tracking.database import MLFLOW, SCHEMA, SchemaError, Tables, name_experiment, put_back


def at_the_schema_before(file: Path) -> str:
    """Make a database as the MLflow before the latest change of its schema made it; the revision."""
    code = f"""
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
uri = "sqlite:///{file}"
Base.metadata.create_all(sqlalchemy.create_engine(uri))
config = _get_alembic_config(uri)
before = ScriptDirectory.from_config(config).get_revision("head").down_revision
command.upgrade(config, before)
print(before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def test_an_older_database_is_not_read_and_its_remedy_works(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    before = at_the_schema_before(file)
    with pytest.raises(SchemaError, match=rf"schema {before}, and its tables are known as of {SCHEMA}") as caught:
        Tables(file)
    remedy = str(caught.value).partition("there with ")[2].partition(", or")[0]
    subprocess.run([sys.executable, "-m", *shlex.split(remedy)], capture_output=True, check=True)
    assert Tables(file).keys("run") == []


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
