"""What was tampered with or lost is found, and mended by the command that the audit names; nothing else is lost."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom.core.artifact import content_hash

pytest.importorskip("darkroom.audit", reason="darkroom audit is not there yet")

REPORT, ARTIFACT = "reports/train_vae/metrics.json", "artifacts/unet"
WEIGHTS = "artifacts/vae/diffusion_pytorch_model.safetensors"


pytestmark = pytest.mark.slow


@pytest.fixture
def project(quick_pipeline: Path, tmp_path: Path) -> Path:
    """A finished and tracked project at another place, committed, to be damaged."""
    copy = tmp_path / "darkroom"
    shutil.copytree(quick_pipeline, copy, symlinks=True)
    for command in ("add .", "-c user.name=test -c user.email=test@example.org commit -m done"):
        subprocess.run(["git", *command.split()], cwd=copy, check=True, capture_output=True)
    return copy


@pytest.fixture
def audit(project: Path, environment_of: Callable[[Path], dict[str, str]]) -> Callable[..., tuple[int, Any]]:
    """`darkroom audit --json ARGUMENTS` -> exit status and what it found, {kind: {where: remedy}}."""

    def call(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
        program = [sys.executable, "-c", "from darkroom.cli import main; main()", "audit", "--json", *arguments]
        done = subprocess.run(
            program, cwd=project, env=environment_of(project), capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 1), done.stderr
        found: dict[str, dict[str, str]] = {}
        for finding in json.loads(done.stdout)["findings"]:
            if finding["breaks"]:
                found.setdefault(finding["kind"], {})[finding["where"]] = finding["remedy"]
        return done.returncode, found

    return call


def everything(project: Path) -> dict[str, str]:
    """The hashes of all outputs that dvc.lock names, and its own."""
    lock = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    paths = ["dvc.lock", *(out["path"] for stage in lock.values() for out in stage["outs"])]
    return {path: content_hash(project / path) for path in paths}


def damage(file: Path) -> None:
    content = file.read_bytes()
    os.chmod(file, 0o644)  # noqa: PTH101
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_each_damage_is_named_and_its_remedy_mends_it(
    project: Path, audit: Callable[..., tuple[int, Any]], environment_of: Callable[[Path], dict[str, str]]
) -> None:
    before = everything(project)
    assert audit() == (0, {})
    digest = content_hash(project / WEIGHTS)
    cached = Path(".dvc/cache/files/md5", digest[:2], digest[2:])
    for file in (cached, Path(ARTIFACT, "config.json"), Path(REPORT)):
        damage(project / file)
    with closing(sqlite3.connect(project / ".mlflow" / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'train_evaluator'")
    status, found = audit()
    assert status == 1
    assert {kind: list(where) for kind, where in found.items()} == {
        "tampered": [ARTIFACT],
        "tampered report": [REPORT],
        "corrupt cache": [cached.as_posix()],
        "missing run": ["train_evaluator"],
    }
    assert "darkroom audit --repair" in found.pop("missing run")["train_evaluator"]
    for remedies in found.values():
        for command in remedies.values():
            subprocess.run(command, shell=True, cwd=project, env=environment_of(project), check=True)
    assert audit("--repair") == (0, {})
    assert everything(project) == before


def test_without_its_database_the_chain_is_recorded_anew(
    project: Path, audit: Callable[..., tuple[int, Any]], dvc_in: Callable[[Path], Any]
) -> None:
    before = everything(project)
    (project / ".mlflow" / "mlflow.db").unlink()
    status, found = audit()
    assert status == 1
    assert found.keys() == {"missing run"}
    assert all("darkroom audit --repair" in remedy for remedy in found["missing run"].values())
    assert audit("--repair") == (0, {})
    assert audit() == (0, {})
    assert "Running stage" not in dvc_in(project)("repro").stdout
    assert everything(project) == before
