"""A project with a store of its own, and the ways to look into it from outside."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import mlflow
import pytest


@pytest.fixture(scope="session")
def store_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one store is kept for all tests, for it takes seconds to make; its name is not a tame one."""
    return tmp_path_factory.mktemp("a project, 100% mine #")


@pytest.fixture
def project(tmp_path: Path, store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, the current one, whose runs go to the common store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(store_root))
    for name in ("MLFLOW_TRACKING_URI", "DARKROOM_TRACKING", "DARKROOM_TRACKING_COPY_MIB"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def client_of() -> Callable[[Path], mlflow.MlflowClient]:
    """For a project, MLflow's own view of its store."""

    def client(root: Path) -> mlflow.MlflowClient:
        address = f"sqlite:///{root / '.mlflow' / 'mlflow.db'}"
        return mlflow.MlflowClient(tracking_uri=address, registry_uri=address)

    return client


@pytest.fixture
def client(client_of: Callable[[Path], mlflow.MlflowClient], store_root: Path) -> mlflow.MlflowClient:
    """MLflow's own view of the common store."""
    return client_of(store_root)


@pytest.fixture
def waiting(project: Path, store_root: Path, load: Callable[[Path], ModuleType]) -> ModuleType:
    """waiting.py: makers of logbooks, in an empty journal over the common store."""
    shutil.rmtree(store_root / ".mlflow/journal", ignore_errors=True)
    return load(Path(__file__).with_name("waiting.py"))


class Server:
    """A real MLflow server on loopback that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        if self._process is None:
            script = Path(__file__).with_name("mlflow_server.py")
            environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, str(script), str(self.folder), str(self.port)],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        self._say("start")
        deadline = time.monotonic() + 300
        question = f"{self.address}/api/2.0/mlflow/experiments/get?experiment_id=0"  # has it open its database
        while True:
            try:
                with urllib.request.urlopen(question, timeout=120):
                    return
            except OSError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "the MLflow server did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._say("stop")
        assert self._process.stdout.readline() == "stopped\n"

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()

    def _say(self, order: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()


@pytest.fixture(scope="session")
def make_server() -> type[Server]:
    """The class, for a server that several tests share."""
    return Server


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, not yet started."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()
