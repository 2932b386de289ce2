"""`make ui`: the server over a project's runs, also where there are none yet."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from darkroom.core.errors import DarkroomError
from darkroom.tracking import serve


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
