"""A project with a store of its own, and the ways to look into it from outside."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import mlflow
import pytest

from darkroom import cli
from tests.support import pipelines, waiting
from tests.support.mlflow_server import Server
from tests.support.registering import PARAMS, PIPELINE, describe


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


@pytest.fixture(name="waiting")
def _waiting(project: Path, store_root: Path) -> ModuleType:
    """waiting.py: makers of event logs, in an empty outbox over the common store."""
    shutil.rmtree(store_root / ".mlflow/journal", ignore_errors=True)
    return waiting


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


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of random networks with its model card. Leave it as it is."""
    folder: Path = pipelines.assembled(tmp_path_factory.mktemp("made"))
    describe(folder)
    return folder


@pytest.fixture
def register(
    project: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """darkroom register OPTIONS, in a project with a pipeline -> what it says."""
    shutil.copytree(made, PIPELINE)
    shutil.copy(PARAMS, "params.yaml")

    def run(*options: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["darkroom", "register", *options])
        try:
            cli.main()
            left = 0
        except SystemExit as exit:
            left = int(exit.code or 0)
        said = capsys.readouterr()
        assert left == status, said
        return said.err if status else said.out

    return run
