"""Training by several processes, as `python stages/…` does it: the same curves as by one, and nobody left behind."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import torch
import yaml

from darkroom.config.params import load as params_of
from darkroom.config.params import read
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account

ROOT = Path(__file__).parents[2]
STAGE, REPORT = "setup_text_encoder", Path("reports/setup_text_encoder")
COLUMNS = ("train/loss", "train/accuracy", "held_out/loss", "held_out/accuracy")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], ModuleType]) -> Path:
    """A project with a few scenes prepared, and a short training of a text encoder ahead."""
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(project)
    for name in ("stages", "src"):
        Path(name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    values = read(ROOT / "recipes" / "scenes-quick.yaml")
    values["prepare_data"]["source"] |= {"n_train": 60, "n_validation": 20, "n_test": 20, "n_novel": 10}
    hard = {"start_step": 5, "every": 4, "group_size": 2, "neighbours": 4}
    short = {"steps": 20, "batch_size": 8, "validate_every": 5, "lr_schedule": {"kind": "cosine", "warmup_steps": 0}}
    values[STAGE]["optimizer"] |= {"kind": "adamw", "learning_rate": 1e-3}
    values[STAGE] |= {**short, "precision": "fp32", "hard_negatives": hard}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    untracked = Run(Account("prepare_data", {}, {}, {}, {}, "", False), tracked=False)
    load(ROOT / "stages" / "prepare_data.py").body(params_of(), Work(torch.device("cpu"), untracked))
    return project


def start(processes: int) -> "subprocess.Popen[str]":
    own = {"PYTHONPATH": str(ROOT / "src"), "DARKROOM_TRACKING": "off", "DARKROOM_THREADS": "1"}
    place = {"TMPDIR": str(Path.cwd().with_name("tmp")), "DARKROOM_PROCESSES": str(processes)}
    return subprocess.Popen(
        [sys.executable, f"stages/{STAGE}.py"],
        env={**os.environ, **own, **place},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def curves() -> list[dict[str, str]]:
    with (REPORT / "curves.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_by_two_processes_a_stage_does_what_it_does_by_one(project: Path) -> None:
    found = {}
    for processes in (1, 2):
        running = start(processes)
        said, errors = running.communicate(timeout=120)
        assert running.returncode == 0, errors
        assert said.count("done in") == 1
        found[processes] = curves()
    one, two = found[1], found[2]
    assert [row["step"] for row in two] == [row["step"] for row in one]
    for name in COLUMNS:
        values = ([float(row[name]) for row in rows if row[name]] for rows in (two, one))
        assert next(values) == pytest.approx(next(values), rel=2e-5), name  # the file has six digits
    assert not list(project.with_name("tmp").glob("darkroom_*"))


@pytest.fixture
def endless(project: Path) -> Path:
    """The same, with a training that does not end by itself."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    values[STAGE]["steps"] = 100_000
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return project


@pytest.mark.slow
def test_a_worker_that_dies_is_named_and_the_leader_ends(endless: Path) -> None:
    running, worker = begun()
    worker.kill()
    _, errors = running.communicate(timeout=20)
    assert running.returncode == 1
    (line,) = [line for line in errors.splitlines() if line.startswith("darkroom: ")]
    assert line.startswith(f"darkroom: {STAGE}: worker 1 was ended by SIGKILL; run again to resume from the last")
    assert not list(endless.with_name("tmp").glob("darkroom_*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_with_the_leader_its_workers_end(endless: Path, number: signal.Signals) -> None:
    running, worker = begun()
    running.send_signal(number)
    _, errors = running.communicate(timeout=20)
    assert psutil.wait_procs([worker], timeout=5)[1] == []
    if number == signal.SIGTERM:
        assert running.returncode == 128 + number
        assert "ended by SIGTERM: saved at step" in errors
    assert not list(endless.with_name("tmp").glob("darkroom_*"))


def begun() -> tuple["subprocess.Popen[str]", psutil.Process]:
    """A leader in the midst of the training, and its worker."""
    running = start(2)
    end = time.monotonic() + 100
    while not list(Path.cwd().with_name("tmp").glob("darkroom_*/1.ready")):
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(2)
    (worker,) = psutil.Process(running.pid).children()
    return running, worker
