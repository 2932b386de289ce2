"""train_unet by processes that each hold a part of the network, as `python stages/train_unet.py` does it."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from darkroom.config.params import load as params_of
from darkroom.config.params import read
from darkroom.data.prepared_writer import PreparedWriter, Row
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from tests.support.projects import ROOT

pytestmark = pytest.mark.slow
WEIGHTS, REPORT = Path("artifacts/unet/diffusion_pytorch_model.safetensors"), Path("reports/train_unet")
SHORT = {
    "steps": 12,
    "batch_size": 6,
    "validate_every": 4,
    "log_every": 2,
    "sample_every": 6,
    "samples": 4,
    "accumulation": 2,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], ModuleType]) -> Path:
    """A project that draws noise pixel by pixel, all done but its U-Net."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    for name in ("stages", "src"):
        Path(name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    values = read(ROOT / "recipes" / "mnist-score-concat.yaml")
    values["train_unet"] |= SHORT | {"precision": "fp32", "on_worse_than_chance": "warn"}
    values["train_unet"]["sampling"]["num_inference_steps"] = 2
    Path("params.yaml").write_text(yaml.safe_dump(values))
    params = params_of()
    side = params.prepare_data.image_size
    writer = PreparedWriter(Path("data/prepared"), "noise", (), False, side, 1)
    for i, picture in enumerate(np.random.default_rng(0).integers(0, 256, (40, side, side), dtype=np.uint8)):
        writer.add(("train", "train", "validation", "test")[i % 4], Row(picture, f"{i}.png", "", (), ()))
    writer.finish()
    for stage in ("train_vae", "cache_latents", "setup_text_encoder"):
        untracked = Run(Account(stage, {}, {}, {}, {}, "", False), tracked=False)
        load(ROOT / "stages" / f"{stage}.py").body(params, Work(torch.device("cpu"), untracked))
    return project


def start(processes: int, **settings: str) -> "subprocess.Popen[str]":
    own = {"PYTHONPATH": str(ROOT / "src"), "DARKROOM_TRACKING": "off", "DARKROOM_THREADS": "1"}
    many = {"DARKROOM_PROCESSES": str(processes), "DARKROOM_STRATEGY": "fsdp2"}
    return subprocess.Popen(
        [sys.executable, "stages/train_unet.py"],
        env=os.environ | own | many | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(running: "subprocess.Popen[str]") -> str:
    said, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    assert said.count("done in") == 1
    return errors


def made() -> tuple[list[dict[str, str]], dict[str, torch.Tensor]]:
    with (REPORT / "curves.csv").open() as file:
        return list(csv.DictReader(file)), load_file(WEIGHTS)


def test_its_curves_weights_and_pictures_are_those_of_one_process(project: Path) -> None:
    """Catches outputs of a part of the weights, and processes that wait for each other at the end."""
    ended(start(1))
    (rows, weights), samples = made(), (REPORT / "samples.png").stat().st_size
    shutil.rmtree(".checkpoints")
    ended(start(2))
    sharded_rows, sharded_weights = made()
    assert [row["step"] for row in sharded_rows] == [row["step"] for row in rows]
    for name in ("train/loss", "held_out/loss"):
        losses = ([float(row[name]) for row in of if row[name]] for of in (sharded_rows, rows))
        assert next(losses) == pytest.approx(next(losses), rel=2e-5)  # the file has six digits
    assert sharded_weights.keys() == weights.keys()
    found, expected = (torch.cat([of[name].flatten() for name in weights]) for of in (sharded_weights, weights))
    # Some biases hardly have a gradient, which AdamW makes as long as any other: they follow the rounding.
    assert float((found - expected).norm() / expected.norm()) < 1e-3
    assert (REPORT / "samples.png").stat().st_size == pytest.approx(samples, rel=0.1)


def test_after_a_signal_any_number_resumes(project: Path) -> None:
    """Catches a save that some processes take part in and others do not."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["train_unet"] |= {"steps": 400, "sample_every": 400}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    running = start(2)
    assert running.stderr is not None
    for line in running.stderr:
        if " steps  " in line:
            break
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM, errors
    assert "ended by SIGTERM: saved at step" in errors
    (checkpoint,) = Path(".checkpoints/train_unet").glob("*/step_*")
    assert len(list(checkpoint.glob("shard-*.safetensors"))) == 2
    values["train_unet"] |= {"stop_at": int(checkpoint.name.removeprefix("step_")) + 2}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    assert "resuming from step" in ended(start(1))
