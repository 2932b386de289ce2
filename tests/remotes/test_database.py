"""PostgreSQL opened without a tracking server: what is refused before any work, and that the remedies work.

Would catch a database whose older schema is found out when the first event is sent, a remedy that shows the password or
does not help, and an audit that reads PostgreSQL's tables as it reads SQLite's.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom.core.errors import DarkroomError
from darkroom.tracking import stage_run
from darkroom.tracking.query import RunQuery
from darkroom.tracking.schema import known_revisions
from tests.support.remote_project import enter_project, refused
from tests.support.remotes import Buckets, Cluster
from tests.support.schemas import make_older

PASSWORD = "hidden-word of 1"
BUCKET = "direct"


@pytest.fixture(scope="module")
def database(cluster: Cluster, buckets: Buckets) -> Iterator[str]:
    """The name of a database with MLflow's schema of before, which the role `direct` owns; and a bucket."""
    import boto3

    cluster.psql("postgres", f"CREATE ROLE direct LOGIN PASSWORD '{PASSWORD}'")
    cluster.psql("postgres", "CREATE DATABASE direct OWNER direct")
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=buckets.address, **keys).create_bucket(Bucket=BUCKET)
    yield "direct"
    cluster.psql("postgres", "DROP DATABASE direct WITH (FORCE)")
    cluster.psql("postgres", "DROP ROLE direct")


@pytest.fixture
def project(cluster: Cluster, buckets: Buckets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, the current folder, whose runs go to the database."""
    variables = {
        "MLFLOW_TRACKING_URI": f"postgresql+psycopg://direct@127.0.0.1:{cluster.port}/direct",
        "PGPASSWORD": PASSWORD,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "secret key of the bucket",
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": buckets.address,
    }
    return enter_project(tmp_path, monkeypatch, variables)


def refusal() -> str:
    message = refused()
    assert PASSWORD not in message
    return message


def run_remedy(message: str, **places: str) -> None:
    """Run the command that a message ends with, as its reader would."""
    command = re.search(r"mlflow (db|experiments) .*$", message)
    assert command is not None, message
    text = command[0]
    for stands_for, own in places.items():
        text = text.replace(stands_for, own)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_an_older_schema_is_refused_with_what_helps_and_then_a_run_is_kept(
    database: str, project: Path, cluster: Cluster, buckets: Buckets
) -> None:
    """The whole way from a database of an older MLflow to a run that an audit finds."""
    before = make_older(os.environ["MLFLOW_TRACKING_URI"])
    latest, _ = known_revisions()
    message = refusal()
    assert f"schema {before}, older than {latest} of the MLflow" in message
    assert message.endswith('run mlflow db upgrade "$MLFLOW_TRACKING_URI"')
    run_remedy(message)
    message = refusal()
    assert "has no experiment darkroom" in message
    run_remedy(message, BUCKET=BUCKET, FOLDER="runs")
    output = project / "artifacts" / "vae"
    with stage_run("train_vae", {"train_vae": {"steps": 3}}, {}, {}, [Path("artifacts/vae")], {}) as run:
        run.metrics(0, {"loss": 1.0})
        output.mkdir(parents=True)
        (output / "config.json").write_text("{}")
    assert any(f"{run.id}/artifacts/artifacts/vae/config.json" in key for key in buckets.contents(BUCKET))
    query = RunQuery()
    assert query.tables is None, "no SQL of ours reads PostgreSQL"
    (found,) = query.runs("train_vae", {})
    assert (found.id, found.good, found.params) == (run.id, True, {"train_vae.steps": "3"})
    assert query.versions(found.outputs["artifacts/vae"]) == ["darkroom-vae version 1"]
    assert not (project / "mlruns").exists()
    assert not (project / ".darkroom").exists()
    dump = cluster.dump()
    assert PASSWORD not in dump
    assert "secret key of the bucket" not in dump

    cluster.psql(database, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    message = refusal()
    assert "schema ffffffffffff, which the MLflow" in message
    assert "install the Darkroom that goes with the MLflow that wrote it" in message
    with pytest.raises(DarkroomError, match="ffffffffffff"):
        RunQuery()
    cluster.psql(database, f"UPDATE alembic_version SET version_num = '{latest}'")


@pytest.mark.usefixtures("database", "project")
@pytest.mark.parametrize("fault", ["password", "database", "away", "driver"])
def test_a_database_that_cannot_be_opened_is_refused_in_one_line(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = os.environ["MLFLOW_TRACKING_URI"]
    if fault == "password":
        monkeypatch.setenv("PGPASSWORD", "WRONG")
        assert "password authentication failed" in refusal()
    elif fault == "database":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{address}-of-nobody")
        assert '"direct-of-nobody" does not exist' in refusal()
    elif fault == "away":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://direct@127.0.0.1:1/direct")
        assert "Connection refused" in refusal()
    else:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        assert refusal().endswith("pip install 'darkroom[server]'")
