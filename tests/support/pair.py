"""What several processes train in test_distributed: the test leads, and this module, run as a script, is each other.

All go through the same trainings in the same order; `alone` is what one process makes of them.
"""

import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]

from darkroom.config.text_encoder import HardNegativesConfig
from darkroom.config.training import Optimization
from darkroom.core.checkpoint import Checkpoints, Stateful
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import Interruption
from darkroom.core.rng import generator, seeded
from darkroom.training.autoencoder import VAELoss, VAELosses
from darkroom.training.contrastive import ContrastiveLoss
from darkroom.training.engine import distributed
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.distributed import ALONE, CPU, Processes, group
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop, Loss, Phase
from tests.support import networks
from tests.support.settings import optimization
from tests.support.worlds import World

STEPS, FEW, CRITIC_FROM, HARD_FROM, EVERY, LOST_AT, DIES_AT = 16, 6, 4, 4, 6, 10, 3
AGAIN = 12  # trainings one after the other
N, SIDE, WORDS, LENGTH = 40, 8, 12, 6
Terms = Callable[[int, slice], Mapping[str, Tensor]]
Join = Callable[[], AbstractContextManager[Processes]]


class LostError(Exception):
    """A process is gone."""


class Meeting:
    """Processes that know where to find each other, anew for each training."""

    def __init__(self, folder: Path, rank: int, size: int) -> None:
        self.folder, self.rank, self.size, self.met = folder, rank, size, 0

    @contextmanager
    def join(self) -> Iterator[Processes]:
        self.met += 1
        store = FileStore(str(self.folder / f"store_{self.size}_{self.met}"), self.size)
        try:
            with suppress(SystemExit), group(self.rank, self.size, CPU, store) as processes:
                yield processes
        finally:
            gc.collect()  # connections close when nothing holds the group; of a process of a stage, when it ends


@dataclass
class Made:
    """What became of a training: every step's values, all weights, averages and moments at its end, or its error."""

    values: list[dict[str, float]] = field(default_factory=list)
    state: list[Any] = field(default_factory=list)
    error: str = ""


@dataclass
class Training:
    """One training of several phases, built anew each time it is run."""

    phases: list[Phase]
    processes: Processes
    accumulation: int = 1
    batch_size: int = 8
    steps: int = STEPS
    memory: Mapping[str, Stateful] = field(default_factory=dict)

    def run(self, folder: Path | None = None, lose_at: int | None = None, every: int = EVERY) -> Made:
        """folder: of the checkpoints. lose_at: after so many steps the leader is gone."""
        made, ema = Made(), EMA(self.phases[0].network, 100)

        def watch(step: int, values: Mapping[str, float]) -> None:
            made.values.append(dict(values))
            if step == lose_at:
                raise LostError

        every = every if self.processes.leads else 0
        with suppress(LostError, SystemExit):
            try:
                Loop(
                    self.phases,
                    ema,
                    steps=self.steps,
                    batch_size=self.batch_size,
                    accumulation=self.accumulation,
                    hooks=[watch],
                    description="pair",
                    checkpoints=Checkpoints(folder, {}, 0, every, Interruption()),
                    state=self.memory,
                    processes=self.processes,
                ).run()
            except DarkroomError as error:
                made.error = str(error)
        holders: list[Stateful] = [*self.phases, ema]
        made.state = [holder.state_dict() for holder in holders]
        return made


def adamw(**changes: object) -> Optimization:
    usual = {"learning_rate": 1e-3, "weight_decay": 0.01, "clip_norm": 1.0}
    return optimization(**usual | {"lr_schedule": "cosine", "warmup_steps": 5} | changes)


def context(processes: Processes, batch_size: int = 8) -> TrainingContext:
    return TrainingContext(batch_size, 0, "fp32", CPU, processes)


def unet(processes: Processes, steps: int = STEPS, accumulation: int = 1, **changes: object) -> Training:
    """With parts that are not equally large."""
    task = World("text", context(processes, 9)).task()
    phases = [Phase("", task.network, adamw(**changes), task.loss)]
    return Training(phases, processes, accumulation, 9, steps)


def vae(processes: Processes, steps: int = STEPS) -> Training:
    """With a critic, so with two phases and weights that hang on the whole batch's gradients."""
    images = torch.randint(0, 256, (N, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator(0, "images"))
    with seeded(0, "vae"):
        network = networks.built(networks.kl((16, 16), groups=1))
        critic = networks.discriminator()
    # Not l1, where a rounding that turns a sign turns a gradient.
    loss = VAELoss("l2", 0.1, discriminator=critic, adversarial_weight=0.5, adversarial_start=CRITIC_FROM)
    task = VAELosses(network, loss, lambda rows: images[rows], N, context(processes))
    critics = Phase("critic", critic, adamw(), task.discriminator_loss, CRITIC_FROM)
    return Training([Phase("", network, adamw(), task.loss), critics], processes, steps=steps)


def contrastive(processes: Processes, steps: int = STEPS, **changes: Any) -> Training:
    """With equal captions in a batch, and from a step on with batches of alike ones."""
    draw = generator(0, "captions")
    images = torch.randint(0, 256, (N, 3, SIDE, SIDE), dtype=torch.uint8, generator=draw)
    ids = torch.cat([torch.full((10, 1), WORDS), torch.randint(0, WORDS, (10, LENGTH - 1), generator=draw)], dim=1)
    ids[:, -1] = WORDS + 1
    spec = networks.towers(networks.text(WORDS + 2, length=LENGTH))
    with seeded(0, "towers"):
        towers = networks.built(spec)
    hard = HardNegativesConfig(start_step=HARD_FROM, every=5, group_size=2, neighbours=6)
    shared = replace(context(processes), **changes)
    task = ContrastiveLoss(towers, lambda rows: images[rows], ids, torch.arange(N) % len(ids), shared, hard)
    # At a higher rate, rounding in another order grows beyond a millionth within fifty steps on some processors.
    phase = Phase("", towers, adamw(learning_rate=3e-4), task.loss)
    return Training([phase], processes, steps=steps, memory=task.state())


def line(processes: Processes, loss: Callable[[Terms], Terms] = lambda usual: usual, seed: int = 0) -> Training:
    """As small as can be; `loss` is made of the usual one."""
    with seeded(seed, "line"):
        network = nn.Linear(2, 1)

    def usual(step: int, rows: slice) -> Mapping[str, Tensor]:
        x = torch.randn(8, 2, generator=generator(0, "x", step))[rows]
        return {"loss": (network(x) - x.sum(dim=1, keepdim=True)).square().mean()}

    return Training([Phase("", network, adamw(), Loss.of(loss(usual)))], processes)


def partly_unused(processes: Processes) -> Training:
    """With a parameter that no loss reaches, and one that only the last rows do."""
    with seeded(0, "line"):
        network = nn.ModuleDict({"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1), "of the last": nn.Linear(2, 1)})

    def loss(step: int, rows: slice) -> Mapping[str, Tensor]:
        x = torch.randn(8, 2, generator=generator(0, "x", step))[rows]
        y = network["used"](x) + (network["of the last"](x) if rows.stop == 8 else 0)
        return {"loss": (y - x.sum(dim=1, keepdim=True)).square().mean()}

    return Training([Phase("", network, adamw(), Loss.of(loss))], processes)


def dying(processes: Processes) -> Training:
    """The process that does not lead ends without a word."""

    def loss(usual: Terms) -> Terms:
        def dies(step: int, rows: slice) -> Mapping[str, Tensor]:
            if step == DIES_AT and not processes.leads:
                os._exit(1)
            return usual(step, rows)

        return dies

    return line(processes, loss)


def diverging(processes: Processes) -> Training:
    """In one of the processes a row's loss is no number."""

    def loss(usual: Terms) -> Terms:
        def diverges(step: int, rows: slice) -> Mapping[str, Tensor]:
            broken = step == DIES_AT and rows.stop == 8
            return {"loss": usual(step, rows)["loss"] * (float("nan") if broken else 1.0)}

        return diverges

    return line(processes, loss)


ALIKE: Mapping[str, Callable[[Processes], Made]] = {  # the trainings that come out the same with any number
    "unet": lambda processes: unet(processes).run(),
    "unet by muon": lambda processes: unet(processes, FEW, accumulation=2, optimizer="muon").run(),
    "vae": lambda processes: vae(processes).run(),
    "contrastive": lambda processes: contrastive(processes).run(),
    "contrastive in bf16": lambda processes: contrastive(processes, FEW, precision="bf16").run(),
    "diverging": lambda processes: diverging(processes).run(),
}
LONG: Mapping[str, Callable[[Processes], Made]] = {
    "unet": lambda processes: unet(processes, steps=50).run(),
    "vae": lambda processes: vae(processes, steps=50).run(),
    "contrastive": lambda processes: contrastive(processes, steps=50).run(),
}


def of_two(folder: Path) -> Mapping[str, Callable[[Processes], Made]]:
    """All trainings of two processes; folder: where one process has left a checkpoint of the VAE's."""
    return {
        **ALIKE,
        "lost": lambda processes: contrastive(processes).run(folder / "two", lose_at=LOST_AT),
        "resumed": lambda processes: contrastive(processes).run(folder / "two"),
        "gone on from one": lambda processes: vae(processes).run(folder / "one"),
        "partly unused": lambda processes: partly_unused(processes).run(),
        "differing": lambda processes: line(processes, seed=processes.rank).run(),
        "dying": lambda processes: dying(processes).run(),
    }


def of_three(folder: Path) -> Mapping[str, Callable[[Processes], Made]]:
    """An uninterrupted training, and one that is resumed after its first step."""
    return {
        "unet": lambda processes: unet(processes, FEW).run(),
        "lost": lambda processes: unet(processes, FEW).run(folder / "three", lose_at=2, every=1),
        "resumed": lambda processes: unet(processes, FEW).run(folder / "three"),
    }


SETS: Mapping[str, Callable[[Path], Mapping[str, Callable[[Processes], Made]]]] = {
    "two": of_two,
    "three": of_three,
    "long": lambda folder: LONG,
    "again": lambda folder: {str(i): lambda processes: partly_unused(processes).run() for i in range(AGAIN)},
}


def run(trainings: Mapping[str, Callable[[Processes], Made]], join: Join) -> dict[str, Made]:
    """Each of them, by processes that meet for it."""
    made = {}
    for name, train in trainings.items():
        with join() as processes:
            made[name] = train(processes)
    return made


def alone(folder: Path, trainings: Mapping[str, Callable[[Processes], Made]] = ALIKE) -> dict[str, Made]:
    """The same by one process, which leaves a checkpoint of the VAE's in `folder`."""
    made = run(trainings, lambda: nullcontext(ALONE))
    vae(ALONE).run(folder / "one", lose_at=EVERY + 1)
    return made


def main(arguments: Sequence[str]) -> None:
    folder, trainings, rank, size, bucket = arguments
    distributed.BUCKET = float(bucket)
    run(SETS[trainings](Path(folder)), Meeting(Path(folder), int(rank), int(size)).join)


if __name__ == "__main__":
    main(sys.argv[1:])
