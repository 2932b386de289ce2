"""Rows of gpu.py that run the project's own stages, without DVC and MLflow: how long they take, whether they repeat.

A recipe is run in a folder of its own, into which the project's code is linked.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from darkroom.config.params import Params, read
from darkroom.config.stage_spec import StageSpec, stage_specs
from darkroom.core.artifact import content_hash, files_of, read_json
from darkroom.runner.budget import dependent
from darkroom.runner.resuming import FOLDER, STOP_AT
from gpu_measure import Clock, Emit
from synthetic import PROJECT

RECIPE, SMALL_RECIPE = "scenes", "scenes-quick"
SHORTER, SMALL_SHORTER = 10, 4  # times fewer steps and pictures
CHECKPOINTS = 10  # of a training that is to be killed, half-way
KILLED = ("train_unet", "train_vae")  # the trainings that are killed, one after the other
SMALL = ("prepare_data", "train_vae")  # the stages that are repeated in the small form
POLL = 0.002  # seconds
WARNED = re.compile(
    r"([\w ]+\w) (?:does not have a deterministic implementation|defaults to a non-deterministic algorithm)"
)


class StageError(RuntimeError):
    """A stage failed; with what it said."""


class Project:
    """A folder in which the stages of a recipe run."""

    def __init__(self, folder: Path, values: Mapping[str, Any]) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        for name in ("src", "stages", "data/manifests"):
            (folder / name).symlink_to(PROJECT / name)
        shutil.copy(PROJECT / "dvc.yaml", folder)
        (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        self.places: dict[str, StageSpec] = stage_specs(folder / "dvc.yaml")

    def start(self, stage: str, **runtime: object) -> "Running":
        """Begin a stage; runtime: DARKROOM_… variables."""
        return Running(self, stage, {f"DARKROOM_{key.upper()}": str(value) for key, value in runtime.items()})

    def run(self, stage: str, **runtime: object) -> "Running":
        """A stage from its start to its end."""
        running = self.start(stage, **runtime)
        running.wait()
        return running

    def hashes(self, stage: str) -> dict[str, str]:
        """{file: md5} of all that the stage has written, pictures and reports too."""
        files = [file for path in self.places[stage].outputs for file in files_of(self.folder / path)]
        return {file.relative_to(self.folder).as_posix(): content_hash(file) for file in files}

    def forget(self, stage: str) -> None:
        """Take away what a stage has written, and its checkpoints."""
        for path in (*self.places[stage].outputs, FOLDER / stage):
            _remove(self.folder / path)

    def take_over(self, stage: str, other: "Project") -> None:
        """Have another project's outputs of a stage in place of one's own."""
        for path in self.places[stage].outputs:
            _remove(self.folder / path)
            (shutil.copytree if (other.folder / path).is_dir() else shutil.copy)(
                other.folder / path, self.folder / path
            )

    def reached(self, stage: str) -> int:
        """The step of the newest checkpoint."""
        return max((int(path.name[5:]) for path in (self.folder / FOLDER / stage).glob("*/step_*")), default=0)


class Running:
    """A stage at work."""

    def __init__(self, project: Project, stage: str, runtime: Mapping[str, str]) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
        searched = os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH", "")]))
        self.project, self.stage, self.began = project, stage, time.perf_counter()
        self.seconds = 0.0
        self._log = project.folder / f"{stage}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, f"stages/{stage}.py"],
                cwd=project.folder,
                env={**kept, "DARKROOM_TRACKING": "off", **runtime, "PYTHONPATH": searched},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def said(self) -> str:
        """All that it printed."""
        return self._log.read_text(errors="replace")

    @property
    def warned(self) -> list[str]:
        """The kernels that PyTorch said are not deterministic."""
        return sorted({name.strip() for name in WARNED.findall(self.said)})

    def wait(self) -> None:
        """Until it is done.

        Raises:
            StageError: it failed.
        """
        status = self.process.wait()
        self.seconds = time.perf_counter() - self.began
        if status:
            raise StageError(f"{self.stage} ended with status {status}: {self.said[-1500:]}")

    def kill_at(self, step: int) -> int:
        """End it by SIGKILL once it has a checkpoint of that step or a later one; which one it has.

        Raises:
            StageError: it came to its end before.
        """
        while self.process.poll() is None and self.project.reached(self.stage) < step:
            time.sleep(POLL)
        self.process.send_signal(signal.SIGKILL)
        if self.process.wait() != -signal.SIGKILL:
            raise StageError(f"{self.stage} was not killed at step {step}, it ended before: {self.said[-1500:]}")
        return self.project.reached(self.stage)


def scenes(row: str, contestant: str, clock: Clock, emit: Emit, scratch: Path) -> None:
    """All stages of the default recipe, one after the other: seconds of each, and what the results are worth."""
    project = Project(scratch / "scenes", shortened(SMALL_RECIPE, SMALL_SHORTER) if clock.tiny else recipe(RECIPE))
    taken: dict[str, float] = {}
    for stage in project.places:
        taken[stage] = round(project.run(stage).seconds, 2)
        emit({"stage": stage, "seconds": taken[stage], "metrics": metrics_of(project, stage)})
    emit({"stage": "all", "seconds": round(sum(taken.values()), 2)})


def exact(row: str, contestant: str, clock: Clock, emit: Emit, scratch: Path) -> None:
    """The shortened recipe twice, side by side, stage by stage; then trainings that are killed half-way and resumed.

    Where a stage gives other bytes, the second run goes on from the first one's, so that each is judged by itself.
    """
    values = shortened(SMALL_RECIPE, SMALL_SHORTER) if clock.tiny else shortened(RECIPE, SHORTER)
    one, two = (Project(scratch / name, values) for name in ("one", "two"))
    how = {"deterministic": 1, "threads": max(len(os.sched_getaffinity(0)) // 2, 1), "checkpoint_minutes": 0}
    stages = SMALL if clock.tiny else tuple(one.places)
    with _ended() as running:
        for stage in stages:
            running[:] = [project.start(stage, **how) for project in (one, two)]
            for each in running:
                each.wait()
            found = {"stage": stage, "seconds": round(max(each.seconds for each in running), 2)}
            differing = _differing(one, two, stage)
            emit({"check": "twice", **found, **differing, "not_deterministic": running[0].warned})
            if not differing["same"]:
                two.take_over(stage, one)
        for stage in (name for name in KILLED if name in stages):
            steps = values[stage]["steps"]
            every = max(steps // CHECKPOINTS, 1)
            two.forget(stage)
            running[:] = [two.start(stage, **how, checkpoint_steps=every)]
            killed = running[0].kill_at(steps // 2)
            running[:] = [again := two.start(stage, **how)]
            again.wait()
            if f"step_{killed:09d}" not in again.said:  # the checkpoint, which a training that resumes names
                raise StageError(f"{stage}: killed at step {killed}, it began anew: {again.said[-1500:]}")
            found = {"stage": stage, "seconds": round(again.seconds, 2), "killed_at_step": killed, "steps": steps}
            emit({"check": "resumed", **found, **_differing(one, two, stage)})


def recipe(name: str) -> dict[str, Any]:
    """The values of a recipe."""
    values: dict[str, Any] = read(PROJECT / "recipes" / f"{name}.yaml")
    return values


def shortened(name: str, times: int) -> dict[str, Any]:
    """A recipe with so many times fewer steps and pictures; what would lie above the steps keeps its share of them."""
    values = recipe(name)
    for part, keys in (
        (values["prepare_data"]["source"], ("n_train", "n_validation", "n_test", "n_novel")),
        (values["evaluate"], ("n_test", "n_novel")),
    ):
        part |= {key: max(part[key] // times, 1) for key in keys}
    for section in values.values():
        if STOP_AT not in section:
            continue
        steps = max(section["steps"] // times, 1)
        for key, _, new in dependent(section, steps):
            place: dict[str, Any] = section
            for step in key[:-1]:
                place = place[step]
            place[key[-1]] = new
        section |= {"steps": steps, "on_worse_than_chance": "warn"}
    Params.model_validate(values)
    return values


def metrics_of(project: Project, stage: str) -> dict[str, Any]:
    """What the stage says of its results in figures."""
    found: dict[str, Any] = {}
    for path in project.places[stage].outputs:
        if path.name == "metrics.json":
            found |= read_json(project.folder / path)
    return found


def _differing(one: Project, two: Project, stage: str) -> dict[str, Any]:
    first, second = one.hashes(stage), two.hashes(stage)
    differing = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    return {"same": not differing, "files": len(first), "differing": differing}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _ended() -> Iterator[list[Running]]:
    """In this block stages run; none outlives it."""
    running: list[Running] = []
    try:
        yield running
    finally:
        for each in running:
            if each.process.poll() is None:
                each.process.kill()
                each.process.wait()
