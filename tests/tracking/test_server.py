"""Tracking to a real MLflow server on loopback, also one that goes away."""

import http.server
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from PIL import Image

from darkroom.core.artifact import content_hash, write_json
from darkroom.core.errors import DarkroomError
from darkroom.tracking import Run, stage_run
from darkroom.tracking import run as run_file
from darkroom.tracking.availability import check_answers
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


@contextmanager
def answering(answers: Mapping[str, str | int], certificate: Path | None = None) -> Iterator[str]:
    """The address of a server that says these texts or statuses at these paths, and else that there is no such page.

    certificate: with its key, for https.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0], 404)
            if isinstance(answer, int):
                return self.send_error(answer)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())
            return None

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            secured.load_cert_chain(certificate)
            server.socket = secured.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_gateway_without_its_server_stops_the_stage_before_any_work(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering({"/health": 502}) as address:
        assert "(Bad Gateway)" in refused(address, monkeypatch)


@pytest.mark.parametrize(
    ("release", "said"),
    [
        (
            "2.22.0",
            f"older than {mlflow.__version__} here; there, stop it, pip install mlflow=={mlflow.__version__}, and",
        ),
        ("3.9.12", 'mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"'),
        ("4.0.0rc1", "install the Darkroom that goes with MLflow 4"),
    ],
)
def test_a_server_of_another_mlflow_stops_the_stage_before_any_work(
    release: str, said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a training that ends with the first call which that server does not know."""
    with answering({"/health": "OK", "/version": release}) as address:
        message = refused(address, monkeypatch)
    assert f"runs MLflow {release}" in message
    assert said in message


@pytest.mark.parametrize("version", [{}, {"/version": "<html>"}, {"/version": mlflow.__version__}])
def test_a_server_that_tells_no_other_version_may_be_asked(version: dict[str, str], project: Path) -> None:
    with answering({"/health": "OK", **version}) as address:
        check_answers(address)


def test_a_server_without_a_place_for_artifacts_stops_the_stage_before_any_work(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own /health is well."""
    with answering({"/health": "OK", "/api/2.0/mlflow-artifacts/artifacts": 500}) as address:
        assert "cannot reach its artifacts (status 500); see that its --artifacts-destination" in refused(
            address, monkeypatch
        )
    with answering({"/health": "OK", "/api/2.0/mlflow-artifacts/artifacts": 503}) as address:
        check_answers(address)  # artifacts go elsewhere


@pytest.mark.skipif(not shutil.which("openssl"), reason="a certificate is made with openssl")
def test_a_server_with_a_certificate_of_its_own_is_trusted_as_mlflow_trusts_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a server behind https that the client could use, and that is said not to answer."""
    for name in ("MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", "key", "-out", "certificate"], check=True, capture_output=True)
    both = project / "both.pem"
    both.write_text(Path("key").read_text() + Path("certificate").read_text())
    with answering({"/health": "OK"}, both) as address:
        assert "CERTIFICATE_VERIFY_FAILED" in refused(address, monkeypatch)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "certificate")
        check_answers(address)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "no such file")
        with pytest.raises(DarkroomError, match="no such file: certificates cannot be read"):
            check_answers(address)
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        check_answers(address)


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
