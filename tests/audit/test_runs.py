"""dvc.lock against MLflow's runs: who made it, from what, where; and what --repair fixes."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from darkroom.core.artifact import content_hash
from darkroom.tracking.outbox.event_log import EventLog
from darkroom.tracking.outbox.events import Begin
from darkroom.tracking.process import HOST, PID, STARTED, is_running, process_tags
from darkroom.tracking.schema import known_revisions
from tests.support import toy

Audit = Callable[..., dict[str, Any]]
VAE = Path("artifacts/vae")
METRICS = Path("reports/train_vae/metrics.json")
DAY = 86_400_000


def kinds(found: dict[str, Any]) -> list[str]:
    return [finding["kind"] for finding in found["findings"]]


def named(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """The one finding of a kind."""
    (finding,) = [finding for finding in found["findings"] if finding["kind"] == kind]
    return dict(finding)


def forge_report() -> None:
    """A better figure, and dvc.lock changed to match."""
    before = content_hash(METRICS)
    METRICS.write_text('{"psnr": 40}\n')
    Path("dvc.lock").write_text(Path("dvc.lock").read_text().replace(before, content_hash(METRICS)))


@pytest.fixture
def client(tracked: Path) -> mlflow.MlflowClient:
    """MLflow's own view of the project's store."""
    return mlflow.MlflowClient(f"sqlite:///{tracked / '.mlflow/mlflow.db'}")


@pytest.fixture
def run_of(client: mlflow.MlflowClient) -> Callable[[str], str]:
    """Stage -> id of its latest run."""

    def latest(stage: str) -> str:
        experiment = client.get_experiment_by_name("darkroom").experiment_id
        return str(client.search_runs([experiment], f"tags.stage = '{stage}'")[0].info.run_id)

    return latest


@pytest.mark.usefixtures("tracked")
def test_each_step_is_attested_by_the_run_that_made_it(audit: Audit, run_of: Callable[[str], str]) -> None:
    """Also in a copy of the project: runs are found by content."""
    found = audit()
    assert found["findings"] == []
    for step in found["steps"]:
        assert step["run"]["id"] == run_of(step["stage"])
        assert step["run"]["id"] in step["run"]["link"]
        assert (step["run"]["dirty"], step["run"]["profile"]["threads"]) == (False, "1")
    head = subprocess.run(["git", "rev-parse", "HEAD~"], capture_output=True, text=True, check=True).stdout.strip()
    assert {step["run"]["commit"] for step in found["steps"]} == {head}


def test_a_deleted_run_is_missed_and_brought_back(
    audit: Audit, client: mlflow.MlflowClient, run_of: Callable[[str], str]
) -> None:
    run = run_of("train_vae")
    client.delete_run(run)
    found = audit()
    finding = named(found, "missing run")
    assert (finding["where"], finding["what"]) == ("train_vae", f"its run {run[:8]} was deleted in MLflow")
    found = audit("--repair")
    assert found["findings"] == []
    assert found["repaired"] == [f"train_vae: its deleted run {run} is back"]


def test_a_run_that_is_gone_for_good_is_recorded_afterwards(
    audit: Audit, client: mlflow.MlflowClient, run_of: Callable[[str], str]
) -> None:
    run = run_of("train_vae")
    client.set_tag(run, "stage", "something else")
    toy.record_again(run)
    finding = named(audit(), "missing run")
    assert (finding["where"], finding["breaks"]) == ("train_vae", True)
    found = audit("--repair")
    assert found["whole"]
    assert kinds(found) == ["recorded afterwards"]
    assert client.get_run(run_of("train_vae")).data.params["train_vae.steps"] == "3"
    assert audit("--repair")["repaired"] == []


def test_nothing_is_attested_that_is_not_there(audit: Audit, client: mlflow.MlflowClient, run_of: Any) -> None:
    run = run_of("train_vae")
    client.set_tag(run, "stage", "something else")
    toy.record_again(run)
    (VAE / "weights.txt").write_text("forged")
    found = audit("--repair")
    assert found["repaired"] == []
    assert kinds(found) == ["tampered", "missing run"]


@pytest.mark.usefixtures("tracked")
def test_where_the_store_is_gone_repair_makes_one(audit: Audit) -> None:
    toy.forget_records()
    shutil.rmtree(".mlflow")
    found = audit()
    assert kinds(found) == ["missing run"]
    assert "no such store" in named(found, "missing run")["what"]
    assert not Path(".mlflow").exists()  # an audit makes none
    found = audit("--repair")
    assert found["whole"]
    assert len(found["repaired"]) == 3
    assert named(found, "recorded afterwards")["where"] == "prepare_data, train_vae, evaluate"


@pytest.mark.usefixtures("tracked")
def test_where_the_store_is_gone_its_records_bring_back_what_it_said(audit: Audit) -> None:
    """But for the pictures and files that runs kept, which are lost with it."""
    before = audit()["steps"]
    shutil.rmtree(".mlflow")
    found = audit("--repair")
    assert found["whole"]
    assert set(kinds(found)) == {"lost copies"}
    assert found["steps"] == before


@pytest.mark.usefixtures("tracked")
def test_a_store_that_cannot_be_opened_is_a_finding(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".mlflow/mlflow.db").write_text("no database")
    finding = named(audit(), "store")
    assert "DARKROOM_TRACKING=off" in finding["remedy"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert "does not answer" in named(audit(), "store")["what"]
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    assert audit()["whole"]


def test_a_store_of_another_schema_is_named_and_not_read(tracked: Path, audit: Audit) -> None:
    older = next(revision for revision in known_revisions()[1] if revision != known_revisions()[0])
    with closing(sqlite3.connect(".mlflow/mlflow.db")) as database, database:
        (known,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = ?", (older,))
    finding = named(audit(), "store")
    assert f"schema {older}" in finding["what"]
    assert "mlflow db upgrade sqlite:///" in finding["remedy"]
    with closing(sqlite3.connect(".mlflow/mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    finding = named(audit(), "store")
    assert "schema ffffffffffff" in finding["what"]
    assert "install the Darkroom that goes with" in finding["remedy"]
    with closing(sqlite3.connect(".mlflow/mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (known,))
    assert audit()["findings"] == []


def test_dirty_and_unknown_commits_are_remarked(audit: Audit, client: mlflow.MlflowClient, run_of: Any) -> None:
    client.set_tag(run_of("train_vae"), "git.dirty", "true")
    client.set_tag(run_of("evaluate"), "mlflow.source.git.commit", "0" * 40)
    toy.record_again(run_of("train_vae"))
    toy.record_again(run_of("evaluate"))
    found = audit()
    assert found["whole"]
    assert kinds(found) == ["dirty commit", "unknown commit"]
    assert (named(found, "dirty commit")["where"], named(found, "unknown commit")["where"]) == ("train_vae", "evaluate")


@pytest.mark.usefixtures("tracked")
def test_code_committed_to_dvc_lock_without_a_run_is_remarked(audit: Audit) -> None:
    Path("src/toy/net.py").write_text("A = 1  # one\n")
    finding = named(audit(), "out of date")
    assert finding["what"] == "changed since its stages ran: net.py"
    toy.shell("dvc commit -f train_vae")
    found = audit()
    assert found["whole"]
    assert kinds(found) == ["other code"]


@pytest.mark.usefixtures("tracked")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_what_a_run_wrote_outside_dvc_is_not_called_tampered(audit: Audit, threads: str) -> None:
    """Another execution profile, where that is the difference."""
    (VAE / "weights.txt").write_text("slightly different weights")
    toy.record_run("train_vae", toy.PROFILE | {"threads": threads})
    found = audit()
    finding = named(found, "not in dvc.lock" if threads == "1" else "another profile")
    assert finding["where"] == "artifacts/vae"
    assert ("threads 2, not 1" in finding["what"]) == (threads == "2")
    assert not found["whole"]
    back, keep = finding["remedy"].split(" brings dvc.lock's back, ")
    toy.shell(keep.removesuffix(" keeps this"))
    assert kinds(audit("train_vae")) == []
    toy.shell("git checkout dvc.lock && dvc checkout --force artifacts/vae")
    assert kinds(audit("train_vae")) == ["restored"]
    assert back == "dvc checkout --force artifacts/vae"


@pytest.mark.usefixtures("tracked")
def test_outputs_of_an_earlier_run_are_restored_and_can_be_noted(audit: Audit) -> None:
    """As DVC's run cache does when parameters go back to what they were."""
    first = audit()["steps"][1]["run"]["id"]
    Path("params.yaml").write_text(toy.PARAMS.replace("steps: 3", "steps: 4"))
    toy.shell("dvc repro train_vae")
    toy.record_run("train_vae", steps=4)
    assert audit("train_vae")["steps"][1]["run"]["id"] != first
    Path("params.yaml").write_text(toy.PARAMS)
    toy.shell("dvc repro train_vae")
    found = audit("train_vae")
    assert found["whole"]
    assert kinds(found) == ["restored"]
    assert found["steps"][1]["run"]["id"] == first
    assert kinds(audit("train_vae", "--repair")) == []


def test_runs_in_copies_of_the_project_replace_nothing_in_it(
    audit: Audit, tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of queued experiments, and of a stage made again that came out different."""
    shutil.copytree(tracked, tmp_path / "copy", symlinks=True)
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "copy")
        patch.setenv("DVC_ROOT", str(tracked))
        Path(VAE, "weights.txt").write_text("of an experiment")
        toy.record_run("train_vae", steps=4)
    assert audit()["findings"] == []
    assert audit("--repair")["repaired"] == []
    shutil.rmtree(VAE)
    shutil.copytree(tmp_path / "copy" / VAE, VAE)  # as dvc exp apply does, and brings its dvc.lock too
    assert "wrote, from other inputs or parameters" in named(audit(), "not in dvc.lock")["what"]


@pytest.mark.usefixtures("tracked")
def test_a_lock_file_changed_along_with_a_report_is_contradicted_by_the_run(audit: Audit) -> None:
    forge_report()
    finding = named(audit(), "contradicted")
    assert (finding["where"], finding["breaks"]) == ("train_vae", True)
    assert finding["what"].endswith(f": {METRICS}")
    assert audit("--repair")["repaired"] == []
    assert named(audit(), "contradicted") == finding
    toy.shell(finding["remedy"].partition(", or ")[2])
    assert audit()["findings"] == []


@pytest.mark.usefixtures("tracked")
def test_a_contradicted_lock_file_is_not_attested_once_the_code_has_changed(audit: Audit) -> None:
    forge_report()
    Path("src/toy/net.py").write_text("A = 1  # one\n")
    found = audit("--repair")
    assert found["repaired"] == []
    assert kinds(found) == ["missing run", "out of date"]
    finding = named(found, "missing run")
    assert str(METRICS) in finding["what"]
    assert "--repair" not in finding["remedy"]
    toy.shell(finding["remedy"].partition(", or ")[2])
    assert kinds(audit()) == ["other code"]


@pytest.mark.usefixtures("tracked")
def test_parameters_changed_in_the_lock_file_are_contradicted_by_the_run(audit: Audit) -> None:
    for file in ("dvc.lock", "params.yaml"):
        Path(file).write_text(Path(file).read_text().replace("learning_rate: 0.001", "learning_rate: 0.002"))
    assert yaml.safe_load(Path("dvc.lock").read_text())["stages"]["train_vae"]["params"]
    finding = named(audit(), "contradicted")
    assert finding["what"].endswith("had other parameters than dvc.lock: train_vae.learning_rate")


def test_what_a_run_kept_is_looked_for_and_found_again_after_a_move(audit: Audit, run_of: Any) -> None:
    run = run_of("train_vae")
    assert audit()["findings"] == []  # the store has followed the project by now
    with sqlite3.connect(".mlflow/mlflow.db") as database:
        old = f"/nowhere/.mlflow/artifacts/{run}/artifacts"
        database.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (old, run))
    found = audit()
    assert found["whole"]
    assert set(kinds(found)) == {"lost copies"}
    found = audit("--repair")
    assert found["findings"] == []
    shutil.rmtree(f".mlflow/artifacts/{run}")
    assert kinds(audit()) == ["lost copies"]


def begin(client: mlflow.MlflowClient, began: int | None = None, **tags: Any) -> str:
    """A run of evaluate that is not over."""
    experiment = client.get_experiment_by_name("darkroom").experiment_id
    return str(client.create_run(experiment, began, {"stage": "evaluate", **tags}, "evaluate").info.run_id)


def test_runs_whose_process_is_gone_are_closed_and_no_others(audit: Audit, client: mlflow.MlflowClient) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        there = {**process_tags(), PID: str(process.pid)}  # its number was given again: it began at another time
        living = begin(client, **dict[str, Any](process_tags()))
        gone = begin(client, **dict[str, Any](there))
        elsewhere = begin(client, **dict[str, Any]({**process_tags(), HOST: "another machine"}))
        process.communicate(b"\n")
    found = audit()
    assert found["whole"]
    assert [finding["what"].split()[1] for finding in found["findings"]] == [gone]
    audit("--repair")
    told = {run: client.get_run(run).info.status for run in (living, gone, elsewhere)}
    assert told == {living: "RUNNING", gone: "KILLED", elsewhere: "RUNNING"}


def test_a_run_that_died_before_its_stage_ever_ended_is_closed(audit: Audit, client: mlflow.MlflowClient) -> None:
    begin(client, **dict[str, Any]({**process_tags(), STARTED: "0-0 elsewhere 1"}))
    Path("dvc.lock").unlink()
    assert "stale run" in kinds(audit())
    assert "stale run" not in kinds(audit("--repair"))


def test_runs_of_unknown_processes_are_judged_by_newer_ones_and_by_silence(
    audit: Audit, client: mlflow.MlflowClient, run_of: Any
) -> None:
    now = client.get_run(run_of("evaluate")).info.start_time
    silent = begin(client, now + 1000)
    assert "a newer run" not in str(audit()["findings"])
    newest = begin(client, now + 2000)
    found = audit()
    assert [finding["what"] for finding in found["findings"]] == [
        f"run {silent} counts as running, but a newer run of evaluate began after it"
    ]
    client.delete_run(newest)
    client.delete_run(silent)
    client.delete_run(run_of("evaluate"))
    begin(client, now - 8 * DAY)
    assert "nothing was heard of it for 8 days" in str(audit()["findings"])


def test_a_run_names_the_process_that_works_at_it(client: mlflow.MlflowClient, run_of: Callable[[str], str]) -> None:
    assert is_running(client.get_run(run_of("evaluate")).data.tags, shared=True) is True  # it was made in this process


def test_a_process_is_known_by_its_start_not_by_its_number_alone() -> None:
    mine = process_tags()
    assert mine[PID] == str(os.getpid())
    assert is_running(mine, shared=True) is True
    boot, namespace, ticks = mine[STARTED].split()
    assert is_running({**mine, STARTED: f"{boot} {namespace} {int(ticks) - 1}"}, shared=True) is False
    assert is_running({**mine, STARTED: f"{boot} elsewhere {ticks}"}, shared=False) is None
    other_boot = {**mine, STARTED: f"0-0 {namespace} {ticks}"}
    assert is_running(other_boot, shared=False) is False
    assert is_running(other_boot, shared=True) is None
    assert is_running({**mine, HOST: f"not {socket.gethostname()}"}, shared=False) is None
    assert is_running({}, shared=False) is None


def test_a_run_heard_of_this_week_is_left_open(audit: Audit, client: mlflow.MlflowClient, run_of: Any) -> None:
    now = client.get_run(run_of("evaluate")).info.start_time
    client.delete_run(run_of("evaluate"))  # else it is the newer run
    busy = begin(client, now - 8 * DAY)
    client.log_metric(busy, "loss", 1.0, timestamp=now - 6 * DAY)
    assert "counts as running" not in str(audit()["findings"])


@pytest.mark.usefixtures("tracked")
def test_what_waits_in_the_journal_is_remarked_and_sent(audit: Audit) -> None:
    EventLog.create(Begin("evaluate", 1_700_000_000_000, "", {}, {"stage": "evaluate"}, {})).release()
    assert "not yet sent" in kinds(audit())
    assert audit("--repair")["repaired"] == ["runs uploaded from the outbox: 1"]
    assert "not yet sent" not in kinds(audit())
