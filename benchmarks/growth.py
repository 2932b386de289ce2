"""Seconds and peak anonymous memory of every stage as the data grows: scenes, with trainings cut short.

    python benchmarks/growth.py 2000 20000            numbers of training scenes
    python benchmarks/growth.py 2000 20000 200000 --out growth.json --plot docs/growth.png

Each size is a project of its own, of the recipe scenes-quick with trainings of some steps, without tracking. Memory is
RssAnon, what a process has that no file holds, of a stage's process, of which the peak is taken every INTERVAL
seconds; of its helpers the sum is added. A line of JSON for each stage and size.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from darkroom.config.merging import complete_text

PROJECT = Path(__file__).parents[1]
COPIED = ("src", "stages", "recipes", "data/manifests", "dvc.yaml", ".dvc/config")
STAGES = (
    "prepare_data", "train_vae", "cache_latents", "setup_text_encoder", "train_unet", "train_evaluator", "evaluate"
)  # fmt: skip
INTERVAL = 0.05  # seconds
SHORT: dict[str, Any] = {"steps": 30, "lr_schedule": {"warmup_steps": 2}, "validate_every": 15}
CHANGES: dict[str, Any] = {
    "train_vae": SHORT,
    "setup_text_encoder": {**SHORT, "hard_negatives": {"start_step": 10, "every": 10}},
    "train_unet": {**SHORT, "sample_every": 30},
    "train_evaluator": SHORT,
    "evaluate": {"n_test": 100, "n_novel": 50, "n_grid": 4, "n_sweep": 2, "bootstrap": 100},
}


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with the changes, key by key."""
    found = dict(values)
    for key, value in changes.items():
        found[key] = merged(values[key], value) if isinstance(value, dict) else value
    return found


def new_project(folder: Path, scenes: int) -> Path:
    """A project of so many training scenes."""
    for name in COPIED:
        source, target = PROJECT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, target)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    changes = {**CHANGES, "prepare_data": {"source": {"n_train": scenes}}}
    text = complete_text(folder / "recipes" / "scenes-quick.yaml")
    (folder / "params.yaml").write_text(yaml.safe_dump(merged(yaml.safe_load(text), changes)))
    return folder


def anonymous(process: psutil.Process) -> int:
    """Bytes of a process and its helpers that no file holds."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            status = Path(f"/proc/{one.pid}/status").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon"))
    return total


def run(stage: str, project: Path) -> tuple[float, int]:
    """Seconds of a stage, and the peak of its anonymous memory in bytes."""
    environment = {**os.environ, "PYTHONPATH": str(project / "src"), "DARKROOM_TRACKING": "off"}
    began, peak = time.monotonic(), 0
    with (project / f"{stage}.log").open("w") as log:
        command = [sys.executable, "-P", f"stages/{stage}.py"]
        started = psutil.Popen(command, cwd=project, env=environment, stdout=log, stderr=log)
        while started.poll() is None:
            try:
                peak = max(peak, anonymous(started))
            except psutil.Error:
                break
            time.sleep(INTERVAL)
    if started.wait():
        sys.exit(f"{stage} failed:\n{(project / f'{stage}.log').read_text()[-2000:]}")
    return time.monotonic() - began, peak


def measured(sizes: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    """A finding for each size and stage."""
    for scenes in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            project = new_project(Path(scratch) / "project", scenes)
            for stage in STAGES:
                seconds, peak = run(stage, project)
                yield {"scenes": scenes, "stage": stage, "seconds": round(seconds, 1), "mib": round(peak / 2**20, 1)}


def plot(findings: list[dict[str, Any]], path: Path) -> None:
    """Seconds and memory of each stage over the number of scenes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, key, label in zip(axes, ("seconds", "mib"), ("seconds", "peak anonymous memory, MiB"), strict=True):
        for stage in STAGES:
            points = [(found["scenes"], found[key]) for found in findings if found["stage"] == stage]
            axis.plot(*zip(*points, strict=True), marker="o", label=stage)
        axis.set(xscale="log", xlabel="training scenes", ylabel=label)
        axis.set_ylim(bottom=0) if key == "mib" else axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=int, nargs="*", default=[2000, 20_000, 200_000])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for the projects")
    parser.add_argument("--out", type=Path, help="findings are added to this file, a line each")
    parser.add_argument("--plot", type=Path, help="draw all findings in --out, or these, as a PNG")
    given = parser.parse_args()
    findings = []
    for found in measured(given.scenes, given.folder):
        findings.append(found)
        print(json.dumps(found), flush=True)
        if given.out:
            with given.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
    if given.plot:
        plot([json.loads(line) for line in given.out.read_text().splitlines()] if given.out else findings, given.plot)


if __name__ == "__main__":
    main()
