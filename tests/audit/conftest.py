"""A small project made by a real DVC, with runs in a real store: three stages that take no time."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking._tracking_service import utils

from darkroom.core.artifact import write_json
from darkroom.serving import registry
from tests.support import toy
from tests.support.shared import made_once
from tests.support.tampered_store import ABOUT, DEMANDS

SRC = Path(__file__).parents[2] / "src"
ROUNDS = 4  # of audit and remedy: what stands behind another thing is seen once that is away
LONGEST = 60  # seconds that a case may take: a pipe that is read would keep it for ever


def make(folder: Path) -> None:
    """Make `folder`/made the toy project after `dvc repro`, committed before and after."""
    root = folder / "made"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", str(SRC))
        for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "DARKROOM_TRACKING", "DARKROOM_DATA"):
            patch.delenv(name, raising=False)
        toy.write_files({f"stages/{stage}.py": text for stage, text in toy.SCRIPTS.items()})
        toy.write_files(
            {"dvc.yaml": toy.PIPELINE, "params.yaml": toy.PARAMS, "src/toy/net.py": "A = 1\n", "src/toy/b.py": ""}
        )
        toy.write_files(
            {
                ".gitignore": ".mlflow/\ndata/prepared\ndata/raw\nartifacts/\n",
                ".dvcignore": "__pycache__\n*.pyc\n.*.partial\n",
            }
        )
        toy.write_files({"data/raw/pictures/a.png": "a", "data/raw/pictures/b.png": "b"})
        entries = {"a.png": "0cc175b9c0f1b6a831c399e269772661", "b.png": "92eb5ffee6ae2fec3ad71c777531578f"}
        write_json("data/manifests/toy.json", {name: {"size": 1, "md5": md5} for name, md5 in entries.items()})
        subprocess.run(["git", "init", "--quiet"], check=True)
        toy.shell("dvc init && dvc config core.analytics false && dvc config core.check_update false")
        toy.commit()
        for stage in toy.SCRIPTS:
            toy.shell(f"dvc repro -s {stage}")
            toy.record_run(stage)
        toy.commit()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after `dvc repro`, committed before and after. Leave it as it is: others read it too."""
    return made_once(tmp_path_factory, "audit", make) / "made"


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the current folder; MLflow, which takes its time, is asked only where a test turns `tracked` on."""
    root = tmp_path / "project"
    shutil.copytree(made, root, symlinks=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(SRC))
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "DARKROOM_DATA"):
        monkeypatch.delenv(name, raising=False)
    return root


@pytest.fixture
def tracked(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project, its runs asked."""
    monkeypatch.setenv("DARKROOM_TRACKING", "on")
    return project


Audited = Callable[..., dict[str, Any]]


@pytest.fixture
def audit(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Audited:
    """darkroom audit ARGUMENTS --json -> the object; its exit status says the same."""

    def call(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        status = run("audit", *arguments, "--json")
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        found["findings"] = [finding for finding in found["findings"] if finding["kind"] != "not asked"]
        assert found["whole"] == (status == 0) == (not any(finding["breaks"] for finding in found["findings"]))
        return found

    return call


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """What hangs fails."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)


@pytest.fixture
def mend(audit: Audited, run: Callable[..., int]) -> Callable[..., dict[str, Any]]:
    """Execute the remedy of the first finding, and audit again, until there is none."""

    def call(found: dict[str, Any], tracked: bool) -> dict[str, Any]:
        for _ in range(ROUNDS):
            if not found["findings"]:
                break
            first = found["findings"][0]
            for command in re.split(r", or |, once ", first["remedy"]):
                if not command.startswith(("dvc ", "git ", "rm ", "find ", "cp ", "darkroom ")):
                    continue
                if command.startswith("darkroom audit --repair"):
                    run("audit", "--repair")
                else:
                    toy.shell(command)
                if tracked and command.startswith("dvc repro"):  # its script would have told of its run
                    toy.record_run("train_vae", **yaml.safe_load(Path("params.yaml").read_text())["train_vae"])
                found = audit()
                if first not in found["findings"]:
                    break
        return found

    return call


@pytest.fixture(scope="session")
def registered(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy project with its pipeline registered. Leave it as it is: others read it too."""

    def make_registered(folder: Path) -> None:
        shutil.copytree(made, folder / "made", symlinks=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder / "made")
            for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "DARKROOM_TRACKING"):
                patch.delenv(name, raising=False)
            registry.register(Path("artifacts/pipeline"), ABOUT, DEMANDS, promote=True)

    return made_once(tmp_path_factory, "audit registered", make_registered) / "made"


@pytest.fixture
def tampered(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracked: Path) -> Path:
    """A copy of it, the current folder."""
    root = tmp_path / "registered"
    shutil.copytree(registered, root, symlinks=True)
    monkeypatch.chdir(root)
    utils._artifact_repos_cache.clear()  # by which a process would write a model's files to the project it knew before
    return root
