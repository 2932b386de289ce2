"""`make ui`: the server over a project's runs, also where there are none yet."""

import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from darkroom.core.artifact import write_json
from darkroom.core.errors import DarkroomError
from darkroom.tracking import serve, stage_run, ui
from darkroom.tracking.address import artifacts_folder
from darkroom.tracking.ports import (
    FIRST,
    LAST,
    UI_PORT,
    advertised,
    free_after,
    is_free,
    link_hint,
    running_port,
    web_port,
)
from darkroom.tracking.query import RunQuery
from tests.support.ports import free_port

T = TypeVar("T")
STARTS_WITHIN, ANSWERS_WITHIN = 200, 60  # seconds


@contextmanager
def served(port: int) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """What serves this project's runs at a port, and the address that it prints; ended by SIGTERM, at the latest here.

    Left to itself where a test fails, it would be waited for without end.
    """
    command = [sys.executable, "-c", f"from darkroom.tracking import serve; serve({port})"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        late = threading.Timer(STARTS_WITHIN, server.terminate)
        late.start()
        try:
            assert server.stdout is not None
            address = next((line.strip() for line in server.stdout if line.startswith("http")), None)
            late.cancel()
            assert address is not None, "the server did not start"
            yield server, address
        finally:
            late.cancel()
            server.terminate()
            try:
                server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()


def while_serving(port: int, look: Callable[[], T]) -> T:
    """What `look` finds while this process serves the project's runs; in a process of its own, MLflow's import counts
    twice."""
    with ThreadPoolExecutor(1) as pool:
        over = threading.Event()

        def at_work() -> T:
            while running_port() != port:
                assert not over.wait(0.1), "it never served"
            try:
                return look()
            finally:
                os.kill(os.getpid(), signal.SIGTERM)  # as serve itself takes it

        before, found = signal.getsignal(signal.SIGTERM), pool.submit(at_work)
        try:
            serve(port)
        finally:
            over.set()
            signal.signal(signal.SIGTERM, before)
        return found.result()


def test_a_project_without_runs_has_a_page_to_be_looked_at(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a server that starts over no store; the server itself ends here before it starts."""
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setattr(ui, "command", lambda port: [sys.executable, "-S", "-c", ""])
    port = free_port()
    with pytest.raises(DarkroomError, match=r"did not start; .*server\.log says why"):
        serve(port)
    with closing(sqlite3.connect(project / ".mlflow" / "mlflow.db")) as database:
        assert ("darkroom",) in database.execute("SELECT name FROM experiments").fetchall()


@pytest.mark.slow
def test_a_project_without_runs_has_its_page_and_links_lead_there(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process of its own; what follows serves in this one."""
    monkeypatch.setenv("DVC_ROOT", str(project))
    port = free_port()
    with served(port) as (server, address):
        experiment = address.split("/experiments/")[1].split("/")[0]
        question = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get?experiment_id={experiment}"
        with urllib.request.urlopen(question, timeout=ANSWERS_WITHIN) as answer:
            assert json.load(answer)["experiment"]["name"] == "darkroom"
        assert running_port() == port
        assert link_hint() == ""
        with stage_run("train_vae", {}, {}, {}, [], {}) as run:
            pass
        assert run.address is not None
        assert run.address.startswith(f"http://127.0.0.1:{port}/#/experiments/"), "links lead to where it runs"
        serve(port)
        assert f"runs already:\nhttp://127.0.0.1:{port}/#/experiments/" in capsys.readouterr().out
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=120) == 0
    with socket.socket() as s:
        assert s.connect_ex(("127.0.0.1", port)) != 0, "the server outlived the command"
    assert web_port() == UI_PORT
    assert link_hint() == " (while `darkroom ui` runs)"


def test_a_taken_port_is_named(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DarkroomError, match=f"port {port} is taken; .*--port") as refused:
            serve(port)
    free = int(str(refused.value).rpartition(" ")[2])
    assert is_free(free)


def neighbours(count: int) -> list[socket.socket]:
    """Sockets that listen at ports one after the other; to be closed."""
    for first in range(20_000, 60_000, count):
        held: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
                held[-1].listen()
            return held
        except OSError:
            for one in held:
                one.close()
    raise AssertionError("no ports beside each other are free")


def test_the_port_that_is_offered_was_tried(project: Path) -> None:
    """Catches a remedy that is the next number, which may be taken as well."""
    held = neighbours(4)
    first = held[0].getsockname()[1]
    try:
        with pytest.raises(DarkroomError) as refused:
            serve(first)
        offered = int(str(refused.value).rpartition(" ")[2])
        assert offered >= first + 4
        assert is_free(offered)
        assert not any(is_free(first + i) for i in range(4))
    finally:
        for one in held:
            one.close()


def test_the_last_port_has_another_after_it() -> None:
    free = free_after(LAST)
    assert free is not None
    assert FIRST <= free < LAST


class Health(http.server.BaseHTTPRequestHandler):
    """Answers as MLflow does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *arguments: object) -> None:
        pass


def test_only_a_note_of_a_living_process_whose_port_answers_counts(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches links to what was killed and left its note, to a port that something else has now, and damaged notes."""
    monkeypatch.setenv("DVC_ROOT", str(project))
    notes = project / ".mlflow" / "ui"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        port = server.server_address[1]
        assert running_port() is None, "nothing was noted"
        with advertised(port):
            assert running_port() == port
            assert web_port() == port
        assert running_port() is None
        notes.mkdir(parents=True, exist_ok=True)
        dead = subprocess.run(
            [
                sys.executable,
                "-c",
                "import json; from darkroom.tracking.process import process_tags as t; print(json.dumps(t()))",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        for left in (dead.stdout, "", "{", "[]", "{}", '{"process.pid": 1}'):
            (notes / str(port)).write_text(left)
            assert running_port() is None, left
        server.shutdown()
    with advertised(port):
        assert running_port() is None, "it does not answer any more"


def test_a_server_elsewhere_that_does_not_answer_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with pytest.raises(DarkroomError, match=f":{port} does not answer"):
        serve()


def words_of(process: psutil.Process) -> list[str]:
    """The command line of a process; none of one that is just ending."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_project_of_any_name_keeps_its_runs_in_itself_and_shows_them(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In `what?/` and `100%25 real/` the database and the artifacts lay outside of the project.

    Also catches links that name the default port whatever port was asked for, while it runs or after.
    """
    place = project / "what? 100%25 #;&:é \\ 'x'" / "project"
    place.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(place))
    monkeypatch.chdir(place)
    with stage_run("train_vae", {}, {}, {}, [Path("artifacts/vae")], {}) as run:
        run.text("a note", "notes.txt")
        write_json(Path("artifacts/vae/config.json"), {})
    assert run.id is not None
    (seen,) = RunQuery().runs("train_vae", {})
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
    port = free_port()

    def look() -> tuple[bytes, list[str], str]:
        question = f"http://127.0.0.1:{port}/get-artifact?run_uuid={run.id}&path=notes.txt"
        with urllib.request.urlopen(question, timeout=ANSWERS_WITHIN) as answer:
            note = answer.read()
        assert link_hint() == ""
        with stage_run("train_vae", {}, {}, {}, [], {}) as meanwhile:
            pass
        serve(port)
        words = [word for process in psutil.Process().children(recursive=True) for word in words_of(process)]
        return note, words, str(meanwhile.address)

    note, words, address = while_serving(port, look)
    assert note == b"a note"
    assert str(port) in words
    assert not [word for word in words if "mlflow.db" in word], "an address may hold a password"
    here = f"http://127.0.0.1:{port}/#/experiments/"
    assert address.startswith(here), "links lead to where it runs"
    assert f"runs already:\n{here}" in capsys.readouterr().out
    with socket.socket() as s:
        assert s.connect_ex(("127.0.0.1", port)) != 0, "the server outlived the command"
    assert web_port() == UI_PORT
    assert link_hint() == " (while `darkroom ui` runs)"
