"""Tracking to a real MLflow server on loopback, also one that goes away."""

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from PIL import Image

from darkroom.core.artifact import content_hash, write_json
from darkroom.core.errors import DarkroomError
from darkroom.tracking import Run, stage_run
from darkroom.tracking import run as run_file
from darkroom.tracking.outbox import uploader as sender
from darkroom.tracking.outbox.pending import pending, replay
from darkroom.tracking.store import Store

if TYPE_CHECKING:
    from tests.support.mlflow_server import Server

UNET = Path("artifacts/unet")
PARAMS = {"train_unet": {"steps": 30}}


@pytest.fixture(scope="module")
def started(make_server: "type[Server]", tmp_path_factory: pytest.TempPathFactory) -> Iterator["Server"]:
    """A server that runs; a test that stops it starts it again."""
    server = make_server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.close()


@pytest.fixture
def away(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a journal of its own, which does not wait long for a server at the end of a stage."""
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setattr(sender, "LEAVE_AFTER", 0.5)
    return project


def refused(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is said when a stage is to begin and the server at `address` is no help."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    worked = False
    began = time.monotonic()
    with pytest.raises(DarkroomError) as caught, stage_run("train_unet", {}, {}, {}, [], {}):
        worked = True
    assert not worked
    assert time.monotonic() - began < 5
    message = str(caught.value)
    assert "DARKROOM_TRACKING=off" in message
    assert "\n" not in message
    return message


def test_a_server_that_does_not_answer_stops_the_stage_before_any_work(
    project: Path, server: "Server", monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refused(server.address.replace("//", "//somebody:secret@"), monkeypatch)
    assert f"{server.address} does not answer" in message, "the password is not shown"


def test_a_gateway_without_its_server_stops_the_stage_before_any_work(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(502)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as gateway:
        thread = threading.Thread(target=gateway.serve_forever, args=(0.01,))
        thread.start()
        try:
            assert "(Bad Gateway)" in refused(f"http://127.0.0.1:{gateway.server_port}", monkeypatch)
        finally:
            gateway.shutdown()
            thread.join()


def work(run: Run) -> None:
    """A stage's work, in no time."""
    for step in range(200):
        run.metrics(step, {"loss": 1 / (step + 1)})
        if step % 50 == 0:
            run.picture(Image.new("RGB", (2, 2)), "samples", step)
    run.tag("resumed.from_step", "100")
    run.text("notes", "notes.txt")
    write_json(UNET / "config.json", {})
    run.summary({"psnr": 30.0})


def wait_for(run: Run) -> str:
    """The id of a run that is to begin soon."""
    deadline = time.monotonic() + 60
    while run.address is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert run.id is not None
    return run.id


def test_what_a_server_missed_is_sent_by_the_next_stage(
    away: Path, started: "Server", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", started.address)
    with stage_run("train_unet", PARAMS, {}, {}, [UNET], {}) as run:
        work(run)
    undisturbed = wait_for(run)
    assert pending() == []
    with stage_run("train_unet", PARAMS, {}, {}, [UNET], {}) as run:
        run.metrics(0, {"early": 1.0})
        died = wait_for(run)
        started.stop()
        began = time.monotonic()
        work(run)
        assert time.monotonic() - began < 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    (waiting,) = pending()
    assert waiting.run == died
    assert f"{started.address} takes nothing now (" in said
    assert "Connection refused); " in said
    assert f"this run waits in {waiting.folder}; " in said
    assert "darkroom audit --repair" in said

    with monkeypatch.context() as patch:
        patch.setattr(run_file, "check_answers", lambda address: None)  # it died right after it answered
        with stage_run("unheard", PARAMS, {}, {}, [], {}) as run:
            run.metrics(0, {"loss": 1.0})
        assert run.id is None
        with pytest.raises(ValueError, match="unlucky"), stage_run("failed", PARAMS, {}, {}, [], {}):
            raise ValueError("unlucky")
    assert [(p.stage, p.run) for p in pending()] == [("train_unet", died), ("unheard", None), ("failed", None)]

    write_json(UNET / "config.json", {"of": "a later stage"})
    started.start()
    capsys.readouterr()
    with stage_run("next", {}, {}, {}, [], {}):
        pass
    assert "runs of earlier stages sent now: 3" in capsys.readouterr().err
    assert pending() == []
    assert replay(Store()).sent == ()

    client = mlflow.MlflowClient(tracking_uri=started.address, registry_uri=started.address)
    before, after = client.get_run(undisturbed), client.get_run(died)
    assert after.info.status == "FINISHED"
    for name in ("loss", "psnr"):
        curves = [sorted((m.step, m.value) for m in client.get_metric_history(r, name)) for r in (undisturbed, died)]
        assert curves[0] == curves[1]
    assert client.get_metric_history(died, "early")[0].value == 1.0
    assert before.data.params == after.data.params == {"train_unet.steps": "30"}
    for tag in ("out.artifacts/unet", "stage", "resumed.from_step"):
        assert before.data.tags[tag] == after.data.tags[tag]
    for folder in ("", "samples", "artifacts/unet"):
        assert [a.path for a in client.list_artifacts(undisturbed, folder)] == [
            a.path for a in client.list_artifacts(died, folder)
        ]
    assert len(client.list_artifacts(died, "images")) == len(client.list_artifacts(undisturbed, "images")) == 8
    assert mlflow.artifacts.load_text(f"{after.info.artifact_uri}/artifacts/unet/config.json").strip() == "{}"
    experiment = after.info.experiment_id
    others = {r.info.run_name: r for r in client.search_runs([experiment])}
    assert (others["unheard"].info.status, others["failed"].info.status) == ("FINISHED", "FAILED")
    assert others["unheard"].data.metrics == {"loss": 1.0}
    assert "unlucky" in others["failed"].data.tags["mlflow.note.content"]


def test_a_server_that_is_away_for_a_while_loses_nothing(
    project: Path, started: "Server", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", started.address)
    monkeypatch.setenv("DVC_ROOT", str(project))
    with stage_run("train_unet", PARAMS, {}, {}, [UNET], {}) as run:
        for step in range(30):
            if step == 10:
                wait_for(run)
                started.stop()
            run.metrics(step, {"loss": float(step)})
            run.picture(Image.new("RGB", (2, 2)), "samples", step)
            if step == 20:
                started.start()
        write_json(UNET / "config.json", {"away": "for a while"})
    assert capsys.readouterr().err == ""
    assert pending() == []
    client = mlflow.MlflowClient(tracking_uri=started.address, registry_uri=started.address)
    assert run.address is not None
    assert run.address.startswith(f"{started.address}/#/experiments/")
    found = client.get_run(run.id)
    assert found.info.status == "FINISHED"
    losses = client.get_metric_history(found.info.run_id, "loss")
    assert sorted((m.step, m.value) for m in losses) == [(step, float(step)) for step in range(30)]
    pictures = {Path(a.path).name for a in client.list_artifacts(found.info.run_id, "samples")}
    assert pictures == {f"step_{step:06d}.png" for step in range(30)}
    versions = client.search_model_versions("name = 'darkroom-unet'")
    assert [v.run_id for v in versions if v.tags["content"] == content_hash(UNET)] == [run.id]
