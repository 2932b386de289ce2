"""A tracking server behind user and password: reached with either of the ways to give them, and never told of.

`http://user:pw@host` never worked, and the traceback showed the password. Notes, tags and commands must not, either.
"""

import base64
import http.client
import http.server
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest

from darkroom.core.artifact import write_json
from darkroom.core.errors import DarkroomError
from darkroom.serving.gate import EVALUATION, Thresholds
from darkroom.serving.model_folder import Description
from darkroom.serving.registry import register
from darkroom.tracking import serve, stage_run
from darkroom.tracking.query import RunQuery
from darkroom.tracking.secrets import hide_secrets
from tests.support import pipelines

if TYPE_CHECKING:
    from tests.support.mlflow_server import Server

USER, PASSWORD = "me@home", "ge@h/e:i%m#ü"
ENCODED = "ge%40h%2Fe%3Ai%25m%23%C3%BC"
VAE = Path("artifacts/vae")


class Guarded(http.server.ThreadingHTTPServer):
    """Passes requests on to a server, if they bring user and password."""

    def __init__(self, behind: int) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Authorization") != f"Basic {expected}":
                    self.send_error(401)
                    return
                onward = http.client.HTTPConnection("127.0.0.1", behind, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "authorization")}
                onward.request(self.command, self.path, body, headers)
                answer = onward.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.pass_on)
        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="module")
def behind(make_server: "type[Server]", tmp_path_factory: pytest.TempPathFactory) -> Iterator["Server"]:
    server = make_server(tmp_path_factory.mktemp("behind"))
    server.start()
    yield server
    server.close()


@pytest.fixture
def guarded(behind: "Server", project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """HOST:PORT of a server that asks for user and password, in a project with its own journal."""
    monkeypatch.setenv("DVC_ROOT", str(project))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # so that what is put there goes with the test
    with Guarded(behind.port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def check_silent(*texts: str) -> None:
    forms = (PASSWORD, ENCODED, ENCODED.lower(), base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(), "h/e:i")
    for text in texts:
        assert not [form for form in forms if form in text], text


@pytest.mark.parametrize("way", ["in the address", "in the environment"])
def test_a_run_is_kept_behind_user_and_password(
    way: str, guarded: str, behind: "Server", monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if way == "in the address":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me%40home:{ENCODED}@{guarded}/")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{guarded}")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    with stage_run("train_vae", {}, {}, {}, [VAE], {"device": "cpu"}) as run:
        run.metrics(0, {"loss": 1.0})
        run.text("a note", "notes.txt")
        write_json(VAE / "config.json", {"of": way})
    assert run.address is not None
    assert run.address.startswith(f"http://{guarded}/#/")
    client = mlflow.MlflowClient(tracking_uri=behind.address, registry_uri=behind.address)
    found = client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert {a.path for a in client.list_artifacts(run.id)} >= {"notes.txt", "manifest.json"}
    pipeline = pipelines.assembled(Path("artifacts"))
    defaults = {"num_inference_steps": 1, "guidance_scale": 1.0, "sampler": "ddim", "strength": 0.5}
    about, demanded = Description("a card", "a ring", {}, defaults, {}), Thresholds(False, None, None, None, True)
    first = register(Path(pipeline), about, demanded, promote=True)
    write_json(Path(pipeline) / EVALUATION, {"alignment": {}, "withheld": {}, "written": way})
    registered = register(Path(pipeline), about, demanded)
    assert registered.had is not None
    assert registered.verdict.notes[0].startswith("not compared with"), "the candidate's figures were asked for"
    serve()
    told = [seen.link for seen in RunQuery().runs("train_vae", {})]
    check_silent(*capfd.readouterr(), str(found.to_dictionary()), str(first), str(registered), *told, run.address)


@pytest.mark.parametrize("wrong", ["me:WRONGWRONG", "me%40home:WRONGWRONG"])
def test_a_wrong_password_stops_the_stage_before_any_work(
    wrong: str, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{wrong}@{guarded}")
    with pytest.raises(DarkroomError, match="refuses user and password") as caught, stage_run("a", {}, {}, {}, [], {}):
        pytest.fail("it began")
    assert "WRONG" not in str(caught.value)
    assert f"http://{guarded}" in str(caught.value)


def test_a_run_that_fails_with_the_password_in_its_error_does_not_keep_it(
    guarded: str, behind: "Server", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me%40home:{ENCODED}@{guarded}")
    with pytest.raises(ValueError, match="unlucky"), stage_run("failed", {}, {}, {}, [], {}) as run:
        raise ValueError(f"unlucky: {PASSWORD} and http://me:{PASSWORD}@there")
    client = mlflow.MlflowClient(tracking_uri=behind.address, registry_uri=behind.address)
    note = client.get_run(run.id).data.tags["mlflow.note.content"]
    assert "unlucky" in note
    check_silent(note)


CRASH = """
from darkroom.tracking.secrets import hide_secrets
import logging, threading
hide_secrets()
def crash():
    raise ValueError("from postgresql://me:hidden-word@host/db, which is hidden-word")
try:
    crash()
except ValueError:
    logging.getLogger("any").exception("at %s", "hidden-word")
thread = threading.Thread(target=crash)
thread.start()
thread.join()
crash()
"""


def test_neither_tracebacks_nor_logs_show_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hidden-word@host/db")
    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("ValueError: from postgresql://host/db, which is ***") == 3
    assert "hidden-word" not in done.stderr
    assert "at ***" in done.stderr


def test_hiding_twice_is_hiding_once() -> None:
    before = logging.getLogRecordFactory()
    try:
        hide_secrets()
        once = logging.getLogRecordFactory()
        hide_secrets()
        assert logging.getLogRecordFactory() is once
    finally:
        logging.setLogRecordFactory(before)
