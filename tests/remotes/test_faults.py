"""MLflow's login, its database and its bucket, each failing: before the work in one line, during it without loss.

MLflow's own /health answers whoever asks and whatever is broken behind it, so that a wrong password or a missing bucket
was found out by the first event of a training that had begun.
"""

import json
import re
import time
import urllib.request
from base64 import b64encode
from pathlib import Path

import mlflow
import pytest

from darkroom.core.errors import DarkroomError
from darkroom.tracking import Run, stage_run
from darkroom.tracking.outbox import uploader
from darkroom.tracking.outbox.pending import pending
from darkroom.tracking.query import RunQuery
from tests.support.remote_project import enter_project, refused
from tests.support.remotes_page import BUCKET, SECRETS, USER, Walkthrough, forms

PASSWORD = SECRETS["MLFLOW_TRACKING_PASSWORD"]


@pytest.fixture
def project(walkthrough: Walkthrough, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, the current folder, whose runs go to the server of the page."""
    login = {"URI": walkthrough.address, "USERNAME": USER, "PASSWORD": PASSWORD}
    monkeypatch.setattr(uploader, "LEAVE_AFTER", 0.5)
    return enter_project(tmp_path, monkeypatch, {f"MLFLOW_TRACKING_{name}": value for name, value in login.items()})


def refusal() -> str:
    """What is said when a stage is to begin."""
    message = refused()
    assert "DARKROOM_TRACKING=off" in message
    assert not [name for name, secret in SECRETS.items() if any(form in message for form in forms(secret))]
    return message


def begun(run: Run) -> str:
    deadline = time.monotonic() + 120
    while run.id is None:
        assert time.monotonic() < deadline
        run.metrics(0, {"alive": 1.0})
        time.sleep(0.05)
    return run.id


def work(run: Run) -> None:
    for step in range(20):
        run.metrics(step, {"loss": 1 / (step + 1)})
    run.text("notes", "notes.txt")


def check_sent(walkthrough: Walkthrough, run: str) -> None:
    """After the fault: the next stage sends all that waited."""
    assert [one.run for one in pending()] == [run]
    with stage_run("next", {}, {}, {}, [], {}):
        pass
    assert pending() == []
    client = mlflow.MlflowClient(walkthrough.address, walkthrough.address)
    found = client.get_run(run)
    assert found.info.status == "FINISHED"
    assert len(client.get_metric_history(run, "loss")) == 20
    assert {one.path for one in client.list_artifacts(run)} == {"notes.txt", "manifest.json"}
    assert any(f"{run}/artifacts/notes.txt" in key for key in walkthrough.buckets.contents(BUCKET))


@pytest.mark.parametrize(
    ("user", "password", "said"),
    [
        (USER, "WRONG" + PASSWORD, r"refuses user and password \(status 401\); correct them"),
        ("nobody", PASSWORD, r"refuses user and password \(status 401\); correct them"),
        (
            "",
            "",
            r"asks for user and password \(status 401\); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        ),
    ],
)
def test_who_cannot_log_in_is_told_so_before_any_work(
    user: str, password: str, said: str, project: Path, walkthrough: Walkthrough, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    assert re.search(said, refusal())
    with pytest.raises(DarkroomError, match=said):
        RunQuery()


def test_a_missing_bucket_is_found_before_any_work_and_one_that_goes_costs_nothing(
    project: Path, walkthrough: Walkthrough, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = []
    try:
        with stage_run("train_vae", {}, {}, {}, [], {}) as run:
            id_ = begun(run)
            taken.append(walkthrough.buckets.take_away(BUCKET))
            assert "cannot reach its artifacts" in refusal()
            work(run)
    finally:
        for bucket in taken:
            walkthrough.buckets.put_back(bucket)
    said = capsys.readouterr().err
    assert "takes nothing now" in said
    assert said.count("\n") == 1
    check_sent(walkthrough, id_)


def change_password(walkthrough: Walkthrough, password: str) -> None:
    """As `admin`."""
    login = b64encode(f"admin:{SECRETS['MLFLOW_AUTH_ADMIN_PASSWORD']}".encode()).decode()
    question = urllib.request.Request(
        f"{walkthrough.address}/api/2.0/mlflow/users/update-password",
        json.dumps({"username": USER, "password": password}).encode(),
        {"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        method="PATCH",
    )
    with urllib.request.urlopen(question, timeout=60):
        pass


def test_a_password_that_is_changed_during_a_run_costs_nothing(
    project: Path, walkthrough: Walkthrough, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        with stage_run("train_vae", {}, {}, {}, [], {}) as run:
            id_ = begun(run)
            change_password(walkthrough, "another of 12 letters")
            work(run)
        said = capsys.readouterr().err
        assert "this run waits in" in said
        assert PASSWORD not in said
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another of 12 letters")
        check_sent(walkthrough, id_)
    finally:
        change_password(walkthrough, PASSWORD)


def test_a_database_that_goes_away_is_named_before_any_work_and_costs_nothing_during_it(
    project: Path, walkthrough: Walkthrough, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        with stage_run("train_vae", {}, {}, {}, [], {}) as run:
            id_ = begun(run)
            walkthrough.cluster.stop()
            assert "does not answer" in refusal()
            work(run)
    finally:
        walkthrough.cluster.stop()
        walkthrough.cluster.start()
    assert "takes nothing now" in capsys.readouterr().err
    check_sent(walkthrough, id_)
