"""Real servers on loopback, asked what nobody should ask: refusals, a client that leaves, an end under load.

How long a refusal takes on an idle machine is measured by benchmarks/serving.py; here the machine has other work too.
"""

import base64
import json
import os
import shutil
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from darkroom import Pipeline
from darkroom.core.errors import DarkroomError
from darkroom.inference.packing import packed
from darkroom.serving.gate import Thresholds
from darkroom.serving.limits import Limits
from darkroom.serving.model_folder import CODE, Description
from darkroom.serving.registry import register, take_out
from darkroom.tracking.store import Store
from tests.support import pipelines
from tests.support.loading import load_script

ROOT = Path(__file__).parents[2]
SOON = 8.0  # seconds: that a refusal may take beside other tests
WAITING = 8  # requests that may wait, DARKROOM_SERVE_WAITING of the server of most tests
ENDS_WITHIN = 10.0  # seconds
LONG = {"num_inference_steps": 1000, "sampler": "ddpm"}
DEFAULTS = {"num_inference_steps": 4, "guidance_scale": 3.0, "sampler": "ddim", "strength": 0.6}
model_server: Any = load_script(ROOT / "benchmarks" / "model_server.py")
Server = Any  # a model_server.ModelServer
ALL_PASS = Thresholds(False, None, None, None, False)


@pytest.fixture(scope="module")
def requests(load: Callable[[Path], ModuleType]) -> ModuleType:
    """benchmarks/hostile_requests.py."""
    return load(ROOT / "benchmarks" / "hostile_requests.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = pipelines.assembled(tmp_path_factory.mktemp("made"))
    return folder


@pytest.fixture(scope="module")
def version(made: Path, store_root: Path) -> str:
    """Of `made`, registered in the common store."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("DARKROOM_", "MLFLOW_", "DVC_"))]:
            patch.delenv(name)
        patch.setenv("DVC_ROOT", str(store_root))
        limits = Limits().of_model(16).described()
        return register(made, Description("a card", "a ring", {}, DEFAULTS, limits), ALL_PASS, True).version


def serving(where: Path, command: Sequence[str], **environment: str) -> Any:
    """What starts a server in an environment without settings but those given; its log is beside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "MLFLOW_", "DVC_"))}
    kept |= {"DARKROOM_DEVICE": "cpu", "DARKROOM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    kept |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **environment}
    return model_server.started(command, where, kept, where / "log")


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps its copy of the model."""
    return tmp_path_factory.mktemp("beside")


@pytest.fixture(scope="module")
def server(version: str, store_root: Path, beside: Path) -> Iterator[Server]:
    """`darkroom serve`; the last of the tests that ask it ends it."""
    how = {"DVC_ROOT": str(store_root), "DARKROOM_SERVE_WAITING": str(WAITING), "TMPDIR": str(beside)}
    with serving(beside, [*model_server.OURS, "--version", version], **how) as found:
        yield found


def test_what_is_hostile_is_refused_by_name_and_the_next_is_served(
    server: Server, requests: ModuleType, made: Path
) -> None:
    """Catches a traceback, an answer of 5xx, a refusal that names nothing, and a server that is not itself after it."""
    before = requests.send(server.port, requests.good(7))
    assert before.status == 200, before.message
    picture = base64.b64decode(json.loads(before.body)["predictions"][0]["image"])
    assert picture.startswith(b"\x89PNG")
    wrong = []
    every = list(requests.hostile())
    assert len(every) >= 50
    for one in every:
        answer = requests.send(server.port, one)
        said = f"{one.name}: {answer.status} after {answer.seconds:.1f} s: {answer.message}"
        if answer.status != one.status or one.names not in answer.message or answer.seconds > SOON:
            wrong.append(said)
        if "Traceback" in answer.body.decode(errors="replace") or 'File "' in answer.message:
            wrong.append(said)
    assert not wrong, "\n".join(wrong)
    after = requests.send(server.port, requests.good(7))
    assert after.body == before.body
    log = server.log.read_text()
    assert "Traceback" not in log, log


def test_it_listens_to_this_machine_alone(server: Server) -> None:
    listening = {
        one.laddr.ip for one in psutil.Process(server.process.pid).net_connections("inet") if one.status == "LISTEN"
    }
    assert listening == {"127.0.0.1"}


def test_the_limits_in_force_are_told(server: Server) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/limits", timeout=60) as answer:
        assert json.load(answer) == replace(Limits(), waiting=WAITING).of_model(16).described()


def test_requests_at_once_are_answered_each_as_if_alone(server: Server, requests: ModuleType, made: Path) -> None:
    pipeline = Pipeline.from_pretrained(made, device="cpu")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: requests.send(server.port, requests.good(seed)), range(16)))
    assert [answer.status for answer in answers] == [200] * 16
    expected = [
        packed(one) for one in pipeline.text_to_image(requests.PROMPT, seeds=list(range(16)), batch_size=1).images
    ]
    assert [json.loads(answer.body)["predictions"][0]["image"] for answer in answers] == expected


def long(requests: ModuleType) -> Any:
    return requests.Hostile("long", "", requests.asked([{"prompt": requests.PROMPT}] * 64, **LONG))


def test_a_client_that_leaves_is_not_drawn_for(server: Server, requests: ModuleType) -> None:
    """Catches eight clients that go away and leave fifty seconds of work each."""
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            body = long(requests).body
            head = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(0.5)
    answer = requests.send(server.port, requests.good())
    assert answer.status == 200, answer.message
    assert answer.seconds < 30


def test_a_body_that_does_not_come_holds_nobody_up(server: Server, requests: ModuleType) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        head = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert requests.send(server.port, requests.good()).status == 200
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


def test_old_http_without_a_host_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 403")


def test_a_chunked_body_is_bounded_too(server: Server) -> None:
    """Catches a limit that believes Content-Length."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        head = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        part = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        for _ in range(12):
            client.sendall(part)
        client.sendall(b"0\r\n\r\n")
        answer = client.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 413"), answer
        assert b"DARKROOM_SERVE_BODY_BYTES" in answer + client.recv(10_000)


def test_more_than_may_wait_are_refused_at_once(server: Server, beside: Path, requests: ModuleType) -> None:
    """And an end under load: all are told, and the process is gone in time."""
    with ThreadPoolExecutor(WAITING + 1) as pool:
        there = [pool.submit(requests.send, server.port, long(requests)) for _ in range(WAITING + 1)]
        time.sleep(2)
        assert list(beside.glob("darkroom_*"))
        refused = requests.send(server.port, requests.good())
        assert refused.status == 429, refused.message
        assert f"requests at once = {WAITING + 2}: 1 at work (DARKROOM_SERVE_AT_WORK)" in refused.message
        assert refused.seconds < SOON
        assert requests.send(server.port, requests.Hostile("health", "", b"", 200, {}, "GET", "/ping")).status == 200
        assert not any(one.done() for one in there)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0, server.log.read_text()
        assert time.monotonic() - began < ENDS_WITHIN
        for one in there:
            assert one.result(30).status == 503
            assert "the server is ending" in one.result().message
    assert "Traceback" not in server.log.read_text()
    assert not list(beside.glob("darkroom_*")), "the copy of the model outlived the server"


def test_mlflows_own_server_ends_work_at_the_deadline_and_itself_under_load(
    version: str, store_root: Path, tmp_path: Path, requests: ModuleType
) -> None:
    """Catches the work that goes on behind a 504, and outlives SIGTERM with it."""
    command = ["-m", "mlflow", "models", "serve", "-m", f"models:/darkroom/{version}", "--env-manager", "local"]
    uri = f"sqlite:///{store_root / '.mlflow' / 'mlflow.db'}"
    with serving(tmp_path, command, MLFLOW_TRACKING_URI=uri, DARKROOM_SERVE_SECONDS="3") as server:
        many = requests.send(server.port, requests.Hostile("rows", "", requests.asked([{"prompt": "x"}] * 100_000)))
        assert (many.status, many.seconds < 30) == (400, True)
        assert "rows = 100000: at most 64 are taken (DARKROOM_SERVE_ROWS)" in many.message
        late = requests.send(server.port, long(requests))
        assert late.status == 400, late.message
        assert "at most 3 are given to a request (DARKROOM_SERVE_SECONDS)" in late.message
        assert late.seconds < 20
        assert requests.send(server.port, requests.good()).status == 200
        with ThreadPoolExecutor(4) as pool:
            there = [pool.submit(requests.send, server.port, long(requests)) for _ in range(4)]
            time.sleep(1)
            began = time.monotonic()
            os.killpg(server.process.pid, signal.SIGTERM)
            server.process.wait(60)
            while True:
                with socket.socket() as s:
                    if s.connect_ex(("127.0.0.1", server.port)) != 0:
                        break
                assert time.monotonic() - began < 60
                time.sleep(0.05)
            assert time.monotonic() - began < ENDS_WITHIN
            assert {one.result(60).status for one in there} <= {400, 429, 503}


@pytest.fixture
def own(project: Path, version: str, store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the registered version in a store of one's own."""
    shutil.copytree(store_root / ".mlflow", project / ".mlflow")
    monkeypatch.setenv("DVC_ROOT", str(project))
    client: Any = Store().client
    source = client.get_model_version("darkroom", version).source.removeprefix("models:/")
    return Path(client.get_logged_model(source).artifact_location)


def test_the_installed_code_serves_whatever_lies_with_the_model(own: Path, version: str, tmp_path: Path) -> None:
    """Catches code that somebody appended in the registry, and versions of a Darkroom without limits."""
    (own / "served.py").write_text(CODE.read_text() + "\nraise SystemExit('somebody else')\n")
    found, folder = take_out(Store(), version, tmp_path / "beside")
    assert found == version
    assert (folder / "served.py").read_bytes() == CODE.read_bytes()
    assert "metadata" in (folder / "MLmodel").read_text()


def test_a_version_whose_files_are_not_what_was_registered_is_not_served(
    own: Path, version: str, tmp_path: Path
) -> None:
    (file,) = (own / "artifacts" / "pipeline" / "unet").glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(DarkroomError, match=r"its files are \S+, but \S+ was registered; run darkroom audit"):
        take_out(Store(), version, tmp_path / "beside")


@pytest.mark.parametrize("which", ["999", "nobody", "", "../..", "0"])
def test_a_version_that_is_not_there_is_named(which: str, own: Path, tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match=r"cannot be taken from .* run darkroom register"):
        take_out(Store(), which, tmp_path / "beside")


def test_a_taken_port_is_named_before_anything_is_loaded(
    run: Callable[..., int], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run("serve", "--port", str(taken.getsockname()[1])) == 1
    assert "is taken; " in capsys.readouterr().err
    assert run("serve", "--host", "203.0.113.7") == 1
    assert "host = '203.0.113.7'" in capsys.readouterr().err
