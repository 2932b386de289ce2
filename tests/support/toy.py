"""The toy project: its files, and what a test does to it."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, PngImagePlugin

from darkroom.config.stage_spec import stage_spec
from darkroom.inference.record_text import FORMAT, KEY
from darkroom.tracking import stage_run
from darkroom.tracking.executed_code import ExecutedCode
from darkroom.tracking.records import RecordIndex
from darkroom.tracking.store import Store

PIPELINE = """\
stages:
  prepare_data:
    cmd: python -P stages/prepare_data.py
    deps: [data/manifests, stages/prepare_data.py]
    params: [prepare_data]
    outs: [data/prepared]
  train_vae:
    cmd: python -P stages/train_vae.py
    deps: [data/prepared, stages/train_vae.py, src/toy]
    params: [train_vae]
    outs: [artifacts/vae]
    metrics:
      - reports/train_vae/metrics.json: {cache: false}
  evaluate:
    cmd: python -P stages/evaluate.py
    deps: [artifacts/vae, data/prepared, stages/evaluate.py]
    params: [evaluate]
    outs: [artifacts/pipeline]
"""
PARAMS = """\
prepare_data:
  source: {kind: image_folder, root: pictures, manifest: data/manifests/toy.json}
train_vae: {steps: 3, learning_rate: 0.001, name: toy}
evaluate: {n_test: 2}
"""
SCRIPTS = {
    "prepare_data": """\
from pathlib import Path
for name in ("train/a.txt", "train/b.txt", "dataset.json"):
    file = Path("data/prepared", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(name)
""",
    "train_vae": """\
from pathlib import Path
from darkroom.core.artifact import provenance, write_json
steps = Path("params.yaml").read_text().partition("steps: ")[2][0]
write_json("artifacts/vae/provenance.json", provenance("data/prepared"))
Path("artifacts/vae/weights.txt").write_text(f"after {steps} steps")
write_json("reports/train_vae/metrics.json", {"psnr": 30})
""",
    "evaluate": """\
from pathlib import Path
from darkroom.core.artifact import provenance, write_json
write_json("artifacts/pipeline/provenance.json", provenance("artifacts/vae"))
Path("artifacts/pipeline/weights.txt").write_text("pipeline of " + Path("artifacts/vae/weights.txt").read_text())
""",
}
PROFILE = {"device": "cpu (toy)", "threads": "1"}
GIT = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")


def shell(command: str) -> None:
    """Run a command that a finding names; DVC's in this process, where it starts faster."""
    from dvc.cli import main as dvc

    for part in command.split(" && "):
        if part.startswith("dvc "):
            assert dvc([*shlex.split(part)[1:], "--quiet"]) == 0, part
        else:
            subprocess.run(part, shell=True, check=True, capture_output=True)


def commit() -> None:
    subprocess.run([*GIT, "add", "--all"], check=True)
    subprocess.run([*GIT, "commit", "--quiet", "--message", "x"], check=True)


def write_files(files: Mapping[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def record_run(
    stage: str, profile: Mapping[str, str] = PROFILE, ran: Mapping[str, str] | None = None, **params: Any
) -> None:
    """A finished run of a stage whose outputs lie there, as the stage itself would have recorded it.

    ran: what it tells of what it ran; by default that it imported nothing but its dependencies.
    """
    here = stage_spec(stage)
    given = {stage: {**yaml.safe_load(PARAMS)[stage], **params}}
    told = ExecutedCode(here, modules={}).tags() if ran is None else ran
    with stage_run(stage, given, here.input_hashes(), here.code_hashes(), here.outputs, profile) as run:
        for name, value in told.items():
            run.tag(name, value)
        if stage == "train_vae":
            for step in (1, 2, 3):
                run.metrics(step, {"loss": 1 / step})
            run.picture(Image.new("RGB", (4, 4)), "samples", step=1)
            run.text("# Notes\n", "notes/words.md")
            run.summary({"psnr": 30.0})


def forget_records() -> None:
    """As if no records had ever been kept."""
    shutil.rmtree(".darkroom")
    subprocess.run([*GIT, "rm", "-r", "--quiet", "--cached", ".darkroom"], check=True)


def record_again(run: str) -> None:
    """Have what MLflow says of a run now be what was recorded of it: as if its stage had told so."""
    store = Store()
    record = RecordIndex.read().latest["run", run].file
    record.unlink()
    subprocess.run([*GIT, "rm", "--quiet", "--cached", record], check=True)
    store.client.delete_tag(run, "record")
    store.keep_record("run", run)


def draw_picture(path: Path, model: str, index: int = 0, sampler: str = "dpmpp_2m") -> Path:
    """A PNG with a record."""
    sampling = {"num_inference_steps": 12, "sampler": {"kind": sampler}, "guidance_scale": 3.0}
    record = {
        "format": FORMAT,
        "prompts": ["a ring"],
        "seeds": [7],
        "index": index,
        "model": model,
        "sampling": sampling,
    }
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(KEY, json.dumps(record))
    Image.new("RGB", (8, 8)).save(path, pnginfo=chunks)
    return path
