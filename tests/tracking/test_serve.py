"""`make ui`: the server over a project's runs, also where there are none yet."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from darkroom.core.artifact import write_json
from darkroom.core.errors import DarkroomError
from darkroom.tracking import serve, stage_run
from darkroom.tracking.address import artifacts_folder
from darkroom.tracking.witness import Witness


def test_a_project_without_runs_has_its_page(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(project))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-c", f"from darkroom.tracking import serve; serve({port})"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = next(line.strip() for line in server.stdout if line.startswith("http"))
        experiment = address.split("/experiments/")[1].split("/")[0]
        question = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get?experiment_id={experiment}"
        with urllib.request.urlopen(question) as answer:
            assert json.load(answer)["experiment"]["name"] == "darkroom"
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=120) == 0
    with socket.socket() as s:
        assert s.connect_ex(("127.0.0.1", port)) != 0, "the server outlived the command"


def test_a_taken_port_is_named(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DarkroomError, match=f"port {port} is taken; .*--port {port + 1}"):
            serve(port)


def test_a_server_elsewhere_that_does_not_answer_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with pytest.raises(DarkroomError, match=f":{port} does not answer"):
        serve()


def test_a_project_of_any_name_keeps_its_runs_in_itself_and_shows_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `what?/` and `100%25 real/` the database and the artifacts lay outside of the project."""
    place = project / "what? 100%25 #;&:é \\ 'x'" / "project"
    place.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(place))
    monkeypatch.chdir(place)
    with stage_run("train_vae", {}, {}, {}, [Path("artifacts/vae")], {}) as run:
        run.text("a note", "notes.txt")
        write_json(Path("artifacts/vae/config.json"), {})
    assert run.id is not None
    (seen,) = Witness().runs("train_vae", {})
    kept = artifacts_folder(seen.artifacts)
    assert kept is not None
    assert (kept / "notes.txt").read_text() == "a note"
    assert kept.is_relative_to(place / ".mlflow")
    made = {path for path in project.rglob("*") if not path.is_relative_to(place)}
    assert made == {place.parent}, "something was made outside of the project"

    moved = place.with_name("moved %3F")
    place.rename(moved)
    monkeypatch.setenv("DVC_ROOT", str(moved))
    monkeypatch.chdir(moved)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-c", f"from darkroom.tracking import serve; serve({port})"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert next(line for line in server.stdout if line.startswith("http"))
        question = f"http://127.0.0.1:{port}/get-artifact?run_uuid={run.id}&path=notes.txt"
        with urllib.request.urlopen(question) as answer:
            assert answer.read() == b"a note"
        processes = psutil.Process(server.pid).children(recursive=True)
        words = [word for process in processes for word in process.cmdline()]
        assert words
        assert not [word for word in words if "mlflow.db" in word], "an address may hold a password"
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=120) == 0
