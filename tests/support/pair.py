"""What two processes train together in test_distributed: the test is one, this module, run as a script, the other.

Both go through the same trainings in the same order; `alone` is what one process makes of them.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.config.text_encoder import HardNegativesConfig
from darkroom.config.training import Optimization
from darkroom.core.checkpoint import Checkpoints, Stateful
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import Interruption
from darkroom.core.rng import generator, seeded
from darkroom.training.autoencoder import VAELoss, VAELosses
from darkroom.training.contrastive import ContrastiveLoss
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.distributed import ALONE, CPU, Processes
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop, Loss, Phase
from tests.support import networks
from tests.support.settings import optimization
from tests.support.worlds import World

STEPS, FEW, CRITIC_FROM, HARD_FROM, EVERY, LOST_AT, DIES_AT = 16, 6, 4, 4, 6, 10, 3
N, SIDE, WORDS, LENGTH = 40, 8, 12, 6
Terms = Callable[[int, slice], Mapping[str, Tensor]]


class LostError(Exception):
    """A process is gone."""


class Meeting:
    """Two processes that know where to find each other, a new place for each training."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.met = folder, 0

    @contextmanager
    def rendezvous(self) -> Iterator[Path]:
        self.met += 1
        yield self.folder / f"store_{self.met}"

    def who_left(self) -> None: ...


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

    def run(self, folder: Path | None = None, lose_at: int | None = None) -> Made:
        """folder: of the checkpoints. lose_at: after so many steps the leader is gone."""
        made, ema = Made(), EMA(self.phases[0].network, 100)

        def watch(step: int, values: Mapping[str, float]) -> None:
            made.values.append(dict(values))
            if step == lose_at:
                raise LostError

        every = EVERY if self.processes.leads else 0
        with suppress(LostError):
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


def vae(processes: Processes) -> Training:
    """With a critic, so with two phases and weights that hang on the whole batch's gradients."""
    images = torch.randint(0, 256, (N, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator(0, "images"))
    with seeded(0, "vae"):
        network = networks.built(networks.kl((16, 16), groups=1))
        critic = networks.discriminator()
    # Not l1, where a rounding that turns a sign turns a gradient.
    loss = VAELoss("l2", 0.1, discriminator=critic, adversarial_weight=0.5, adversarial_start=CRITIC_FROM)
    task = VAELosses(network, loss, lambda rows: images[rows], N, context(processes))
    critics = Phase("critic", critic, adamw(), task.discriminator_loss, CRITIC_FROM)
    return Training([Phase("", network, adamw(), task.loss), critics], processes)


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


def alike(processes: Processes) -> dict[str, Made]:
    """The trainings that come out the same with one process and two."""
    return {
        "unet": unet(processes).run(),
        "unet by muon": unet(processes, FEW, accumulation=2, optimizer="muon").run(),
        "vae": vae(processes).run(),
        "contrastive": contrastive(processes).run(),
        "contrastive in bf16": contrastive(processes, FEW, precision="bf16").run(),
        "diverging": diverging(processes).run(),
    }


def together(processes: Processes, folder: Path) -> dict[str, Made]:
    """All trainings of two processes; folder: where one process has left a checkpoint of the VAE's."""
    made = alike(processes)
    made["lost"] = contrastive(processes).run(folder / "two", lose_at=LOST_AT)
    made["resumed"] = contrastive(processes).run(folder / "two")
    made["gone on from one"] = vae(processes).run(folder / "one")
    made["differing"] = line(processes, seed=processes.rank).run()
    made["dying"] = dying(processes).run()
    return made


def alone(folder: Path) -> dict[str, Made]:
    """The same by one process, which leaves a checkpoint in `folder`."""
    made = alike(ALONE)
    vae(ALONE).run(folder / "one", lose_at=EVERY + 1)
    return made


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0])
    together(Processes(1, 2, CPU, Meeting(folder)), folder)


if __name__ == "__main__":
    main(sys.argv[1:])
