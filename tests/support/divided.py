"""Trainings of a U-Net by one process, and by several of which each holds a part of it; see test_sharding.

This module, run as a script, is one of several: `python -m tests.support.divided FOLDER RANK SIZE STEPS`.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._distributed_c10d import FileStore

from darkroom.config.params import load
from darkroom.config.sections import TrainUNet
from darkroom.core.artifact import save_tensors, write_json
from darkroom.core.checkpoint import Checkpoints
from darkroom.core.device import Strategy
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import Interruption
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.distributed import ALONE, CPU, LOOPBACK, Processes, group
from darkroom.training.engine.ending import Ending
from darkroom.training.engine.fit import fit
from darkroom.training.unet import UNetTask
from tests.support.projects import ROOT
from tests.support.settings import optimization
from tests.support.worlds import World

BATCH, DIES_AT = 9, 3
RECIPE = ROOT / "recipes" / "scenes-quick.yaml"


@dataclass(frozen=True)
class Length:
    """Of all trainings; checkpoints are made every so many steps, and what is lost is so before the second one."""

    steps: int

    @property
    def every(self) -> int:
        return self.steps * 2 // 5

    @property
    def lost_at(self) -> int:
        return self.every + 1


class GoneError(Exception):
    """A process is gone."""


@dataclass
class Told:
    """A tracker that remembers, and may end the training."""

    lose_at: int | None = None
    values: list[dict[str, float]] = field(default_factory=list)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if "train/loss" not in values:
            return
        self.values.append({**values, "step": step})
        if step == self.lose_at:
            raise GoneError


@dataclass
class Shown:
    """Previews that remember of which weights they were: a number for each."""

    every: int
    weights: list[float] = field(default_factory=list)

    def show_inputs(self) -> None: ...

    @torch.no_grad()
    def show(self, network: nn.Module, step: int, heading: str) -> None:
        x = torch.linspace(-1, 1, 4 * 8 * 8).view(1, 4, 8, 8)
        context = network.prepare_context(torch.ones(1, 4, 16))  # type: ignore[operator]
        self.weights.append(float(network(x, torch.full((1,), 500.0), context).sum()))


@dataclass
class Session:
    """What `fit` is lent."""

    processes: Processes
    checkpoints: Checkpoints
    run: Told
    ending: Callable[[int, int | None], Ending] = Ending


def config(length: Length, **changes: object) -> TrainUNet:
    """AdamW at a rate at which rounding does not grow."""
    usual = {"learning_rate": 1e-3, "weight_decay": 0.01, "clip_norm": 1.0, "lr_schedule": "cosine", "warmup_steps": 5}
    moved = optimization(**usual | changes)
    settings = {
        "steps": length.steps,
        "validate_every": length.every,
        "log_every": 1,
        "batch_size": BATCH,
        "stop_at": None,
    }
    return load(RECIPE).train_unet.model_copy(
        update={**settings, "optimizer": moved.optimizer, "lr_schedule": moved.lr_schedule}
    )


def task_of(processes: Processes) -> UNetTask:
    """A U-Net that reads words, on batches that no number of processes divides."""
    return World("text", TrainingContext(BATCH, 0, "fp32", CPU, processes)).task()


def breaks(task: UNetTask) -> None:
    """The loss of step DIES_AT is no number, in the process that has the last row."""
    usual, compute = task.loss.inputs, task.loss.compute
    broken: list[bool] = []

    def inputs(step: int, rows: slice) -> Any:
        broken.append(step == DIES_AT and rows.stop == BATCH)
        return usual(step, rows)

    def terms(batch: Any) -> Mapping[str, Tensor]:
        return {"loss": compute(batch)["loss"] * (float("nan") if broken[-1] else 1.0)}

    task.loss = type(task.loss)(inputs, terms)


def train(
    processes: Processes,
    length: Length,
    out: Path,
    checkpoints: Path | None = None,
    lose_at: int | None = None,
    change: Callable[[UNetTask], None] = lambda task: None,
    **changes: object,
) -> None:
    """Train, and have the leader write what came of it into the folder `out`.

    checkpoints: where they are. lose_at: all are gone after so many steps.
    """
    told, shown, task = Told(lose_at), Shown(length.every), task_of(processes)
    change(task)
    store = Checkpoints(checkpoints, {}, 0, length.every if processes.leads else 0, Interruption())
    found: dict[str, Any] = {}
    try:
        fitted = fit(task, config(length, **changes), Session(processes, store, told), out, shown)
    except GoneError:
        pass
    except DarkroomError as error:
        found["error"] = str(error)
    else:
        found |= {"held_out": fitted.held_out, "step": fitted.step, "shown": shown.weights}
        save_tensors(out / "weights.safetensors", fitted.network.state_dict())
    if processes.leads:
        write_json(out / "found.json", {**found, "values": told.values, "resumed": store.resumed})


def kept(folder: Path, name: str) -> Path:
    """Where checkpoints are, each training's apart from the others', of which only a few would be kept."""
    return folder / f"checkpoints {name}" / "training"


def copied(folder: Path, name: str, to: str) -> Path:
    """A copy of the checkpoints of that name."""
    return Path(shutil.copytree(kept(folder, name), kept(folder, to)))


def damage(folder: Path, how: str) -> Path:
    """The same checkpoints, of which no whole one is left."""
    (newest,) = folder.glob("step_*")
    shard = sorted(newest.glob("*.safetensors"))[-1]
    if how == "torn":
        shard.write_bytes(shard.read_bytes()[:-8])
    elif how == "missing":
        shard.unlink()
    else:
        (newest / "manifest.json").unlink()
    return folder


def full_disk_here() -> None:
    """This process cannot write its part of a checkpoint."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    def write(self: object, plan: object, planner: object) -> None:
        raise OSError(28, "No space left on device")

    HuggingFaceStorageWriter.write_data = write  # type: ignore[method-assign,assignment]


def main(folder: Path, rank: int, size: int, length: Length) -> None:
    """All trainings of one of `size` processes."""
    met = iter(range(1000))

    def run(name: str, strategy: Strategy = "fsdp2", **how: Any) -> None:
        store = FileStore(str(folder / f"store {size} {next(met)}"), size)
        with suppress(SystemExit), group(rank, size, CPU, store, strategy) as processes:
            train(processes, length, folder / str(size) / name, **how)

    def prepared(make: Callable[[], Path]) -> Path:
        """Made by the process that leads, before the others need it."""
        store = FileStore(str(folder / f"store {size} {next(met)}"), size)
        with group(rank, size, CPU, store, "fsdp2") as processes:
            return Path(processes.from_leader(str(make()) if rank == 0 else ""))

    run("whole")
    if size == 2:
        run("lost", checkpoints=kept(folder, "of two"), lose_at=length.lost_at)
        damaged = prepared(lambda: damage(copied(folder, "of two", "torn"), "torn"))
        run("torn", checkpoints=damaged, lose_at=1)
        run("resumed", checkpoints=prepared(partial(copied, folder, "of two", "by two")))
        run("resumed as ddp", "ddp", checkpoints=prepared(partial(copied, folder, "of two", "by ddp")))
        run("of one", checkpoints=prepared(partial(copied, folder, "of one", "of one by two")))
        run("muon", optimizer="muon")
        run("broken", change=breaks)
        if rank == 1:
            full_disk_here()
        run("full disk", checkpoints=kept(folder, "full"), lose_at=length.lost_at)
    else:
        run("of two", checkpoints=prepared(partial(copied, folder, "of two", "by four")))


def alone(folder: Path, length: Length) -> None:
    """The same by one process."""
    train(ALONE, length, folder / "1" / "whole")
    train(ALONE, length, folder / "1" / "lost", checkpoints=kept(folder, "of one"), lose_at=length.lost_at)


def after(folder: Path, length: Length) -> None:
    """What one process makes of what two left."""
    train(ALONE, length, folder / "1" / "of two", checkpoints=copied(folder, "of two", "by one"))


def together(folder: Path, size: int, length: Length) -> None:
    """`main` by `size` processes."""
    threads = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LOOPBACK}
    command = [sys.executable, "-m", "tests.support.divided", str(folder)]
    all_of_them = [
        subprocess.Popen([*command, str(rank), str(size), str(length.steps)], cwd=ROOT, env=threads)
        for rank in range(size)
    ]
    try:
        assert [process.wait() for process in all_of_them] == [0] * size
    finally:
        for process in all_of_them:
            process.kill()


def found(folder: Path, size: int, name: str) -> dict[str, Any]:
    """What came of a training."""
    read: dict[str, Any] = json.loads((folder / str(size) / name / "found.json").read_text())
    return read


def _script(arguments: Sequence[str]) -> None:
    folder, rank, size, steps = arguments
    torch.set_num_threads(1)
    main(Path(folder), int(rank), int(size), Length(int(steps)))


if __name__ == "__main__":
    _script(sys.argv[1:])
