"""Training by several processes, as `python stages/…` does it: the same curves as by one, and nobody left behind."""

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import psutil
import pytest
import torch
import yaml
from torch.distributed import HashStore  # type: ignore[attr-defined]

from darkroom.config.params import load as params_of
from darkroom.config.params import read
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from darkroom.training.engine.distributed import CPU, LOOPBACK, Processes

ROOT = Path(__file__).parents[2]
STAGE, REPORT = "setup_text_encoder", Path("reports/setup_text_encoder")
SCRIPT = f"stages/{STAGE}.py"
HALF_A_DIGIT = 5e-6  # of the six that curves are written with
PATIENCE = 300  # seconds, for machines with much else to do
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


def start(processes: int, *command: str, **settings: str) -> "subprocess.Popen[str]":
    """The stage, by `command` if that is given."""
    own = {"PYTHONPATH": str(ROOT / "src"), "DARKROOM_TRACKING": "off", "DARKROOM_THREADS": "1"}
    place = {"TMPDIR": str(Path.cwd().with_name("tmp")), "DARKROOM_PROCESSES": str(processes)}
    return subprocess.Popen(
        [sys.executable, *(command or ["-P", SCRIPT])],
        env={**os.environ, **own, **place, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def curves() -> list[dict[str, str]]:
    with (REPORT / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def outputs() -> dict[str, bytes]:
    return {path.as_posix(): path.read_bytes() for path in Path("artifacts").rglob("*") if path.is_file()}


def left_in(folder: Path) -> list[Path]:
    """What is left in the folder for temporary files, but for the compiler's cache, which PyTorch makes and keeps."""
    return [path for path in folder.iterdir() if not path.name.startswith("torchinductor")]


def assert_alike(rows: list[dict[str, str]], expected: list[dict[str, str]], within: float = 2e-5) -> None:
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for name in COLUMNS:
        found, wanted = ([float(row[name]) for row in of if row[name]] for of in (rows, expected))
        assert found == pytest.approx(wanted, rel=within), name


@pytest.mark.slow
def test_by_two_processes_a_stage_does_what_it_does_by_one(project: Path) -> None:
    found = {}
    for processes in (1, 2):
        running = start(processes)
        said, errors = running.communicate(timeout=PATIENCE)
        assert running.returncode == 0, errors
        assert said.count("done in") == 1
        assert errors.count("text encoder: 20/20") == 1, "the leader's alone"
        assert "Warning" not in errors
        found[processes] = curves()
    assert_alike(found[2], found[1])
    assert not left_in(project.with_name("tmp"))


@pytest.mark.slow
def test_two_machines_do_what_one_does(project: Path) -> None:
    """Two torchruns, as of two machines: on the first one the stage is started as dvc would, on the other by torchrun.

    Catches a second machine that writes or waits for a lock, and ranks that take part by their place on their machine.
    """
    values = yaml.safe_load(Path("params.yaml").read_text())
    values[STAGE]["steps"] = 50
    values[STAGE]["optimizer"]["learning_rate"] = 1e-4  # ten times as much enlarges rounding as much
    Path("params.yaml").write_text(yaml.safe_dump(values))
    assert start(1).wait(PATIENCE) == 0
    expected = curves()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    on_loopback = {"GLOO_SOCKET_IFNAME": LOOPBACK}
    names = {"PET_NNODES": "2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
    first = start(1, **names, **on_loopback)
    options = ["--nnodes=2", "--node-rank=1", "--master-addr=127.0.0.1", f"--master-port={port}", "--nproc-per-node=2"]
    second = start(1, "-m", "torch.distributed.run", *options, SCRIPT, **on_loopback)
    (said, errors), (nothing, of_second) = first.communicate(timeout=PATIENCE), second.communicate(timeout=PATIENCE)
    assert (first.returncode, second.returncode) == (0, 0), errors + of_second
    assert "done in" in said
    assert "done in" not in nothing
    assert "text encoder" not in of_second
    assert_alike(curves(), expected, within=1e-6 + HALF_A_DIGIT)


@pytest.fixture
def endless(project: Path) -> Path:
    """The same, with a training that does not end by itself."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    values[STAGE]["steps"] = 100_000
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return project


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_dies_is_named_and_all_end(endless: Path, rank: int) -> None:
    running, ranks = begun()
    ranks[rank].kill()
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 1
    (line,) = [line for line in errors.splitlines() if line.startswith("darkroom: ")]
    assert line.startswith(f"darkroom: {STAGE}: worker {rank} was ended by SIGKILL; run again to resume from the last")
    assert psutil.wait_procs(list(ranks.values()), timeout=1)[1] == []
    assert not left_in(endless.with_name("tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_with_the_stage_its_ranks_end(endless: Path, number: signal.Signals) -> None:
    running, ranks = begun()
    running.send_signal(number)
    _, errors = running.communicate(timeout=30)
    assert psutil.wait_procs(list(ranks.values()), timeout=5)[1] == []
    if number != signal.SIGKILL:
        assert running.returncode == 128 + number
        (line,) = [line for line in errors.splitlines() if line.startswith("darkroom: ")]
        assert f"ended by {number.name}: saved at step" in line
        assert not left_in(endless.with_name("tmp"))


@pytest.mark.slow
def test_after_a_kill_two_processes_make_the_same_bytes(project: Path) -> None:
    """Catches what is not in a checkpoint, or is in the leader's alone."""
    saving = {"DARKROOM_CHECKPOINT_STEPS": "4"}
    assert start(2, **saving).wait(PATIENCE) == 0
    expected = outputs()
    shutil.rmtree(".checkpoints")
    running, ranks = begun(**saving)
    while not list(Path(".checkpoints").glob(f"{STAGE}/*/step_*")):
        time.sleep(0.02)
    ranks[1].kill()
    running.communicate(timeout=30)
    assert running.returncode == 1, "it was faster"
    again = start(2, **saving)
    _, errors = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, errors
    assert "resuming from step" in errors
    assert outputs() == expected


@pytest.mark.parametrize("stage", ["train_vae", "setup_text_encoder", "train_unet", "train_evaluator"])
def test_a_process_that_does_not_lead_writes_nothing_on_its_way_to_the_training(
    stage: str, small_pipeline: Path, load: Callable[[Path], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a moment: catches a stage that begins to write an output before it trains."""

    def trained(self: Processes, step: int, networks: object) -> NoReturn:
        raise SystemExit(0)

    monkeypatch.chdir(small_pipeline)
    monkeypatch.setattr(Processes, "distributed", trained)
    untracked = Run(Account(stage, {}, {}, {}, {}, "", False), tracked=False)
    work = Work(CPU, untracked, processes=Processes(1, 2, CPU, "ddp", HashStore()))
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    with pytest.raises(SystemExit):
        load(ROOT / "stages" / f"{stage}.py").body(params_of(), work)
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def begun(**settings: str) -> tuple["subprocess.Popen[str]", dict[int, psutil.Process]]:
    """A stage in the midst of its training, and its ranks."""
    running = start(2, **settings)
    end = time.monotonic() + PATIENCE
    while not Path(f".checkpoints/{STAGE}.training").exists():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)
    if not settings:
        time.sleep(2)
    return running, {int(rank.environ()["RANK"]): rank for rank in psutil.Process(running.pid).children()}
