"""What several processes cost: a recipe's U-Net trained by two of one thread each, and by one of one thread.

    python benchmarks/processes.py                      the default recipe
    python benchmarks/processes.py --recipe photos-ddpm --processes 4

Three contestants take turns, `--rounds` times: one process with all rows of a batch; one with as many rows as each of
several has; and several, which share the rows. Prints the median seconds of a step of each, how much quicker several
are than one with the same rows, and their overhead: a step of theirs beside one of a process that has its rows alone.
Under that are the reductions of gradients, the agreement on the end, and what the processes take from each other
(memory bandwidth, caches). On a busy machine the wall clock says little, and the processor's leaves out waiting.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from itertools import pairwise

from darkroom.config.params import load
from darkroom.core import device as devices
from darkroom.diffusion.objective import Objective
from darkroom.diffusion.process import process_of
from darkroom.runner.launch import Rank
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.distributed import ALONE
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop
from darkroom.training.latent_batches import LatentBatches
from darkroom.training.unet import UNetTask
from synthetic import HELD_OUT, PROJECT, condition_of, conditioning, latent_of, latents, network

SAMPLES, CAPTIONS, WARM_UP = 512, 64, 3


def measure(recipe: str, rows: int, steps: int) -> None:
    """As one of the processes: train, and print the median seconds of a step, where this one leads."""
    params = load(PROJECT / "recipes" / f"{recipe}.yaml")
    p, here = params.train_unet, Rank.here()
    device = devices.start(devices.Runtime(device="cpu", threads=1))
    with here.joined(device, "ddp") if here is not None else nullcontext(ALONE) as processes:
        unet, shape = network(params), latent_of(params)
        context = TrainingContext(rows, p.seed, p.precision, device, processes)
        data = LatentBatches(
            latents(SAMPLES, shape),
            latents(HELD_OUT, shape),
            conditioning(condition_of(params), SAMPLES, CAPTIONS),
            context,
            p.condition_dropout,
            p.horizontal_flip,
            p.held_out,
        )
        task = UNetTask(unet, Objective(process_of(p.process), p.objective), data)
        at = [(time.perf_counter(), time.process_time())]
        Loop(
            task.phases(p),
            EMA(unet, p.ema_half_life),
            steps=WARM_UP + steps,
            batch_size=rows,
            description="benchmark",
            hooks=[lambda step, values: at.append((time.perf_counter(), time.process_time()))],
            processes=processes,
        ).run()
    for clock in zip(*at[WARM_UP:], strict=True):
        print(statistics.median(after - before for before, after in pairwise(clock)))


def seconds(processes: int, rows: int, recipe: str, steps: int) -> tuple[float, float]:
    """Of a step by so many processes, which share the rows; and of one of their processors."""
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", __file__]
    done = subprocess.run(
        [sys.executable, *command, "--worker", "--recipe", recipe, "--rows", str(rows), "--steps", str(steps)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    wall, busy = map(float, done.stdout.splitlines()[-2:])
    return wall, busy


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="scenes", help="name of a recipe for text (default: scenes)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=int, help="of a batch (default: the recipe's)")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    rows = asked.rows or load(PROJECT / "recipes" / f"{asked.recipe}.yaml").train_unet.batch_size
    if asked.worker:
        measure(asked.recipe, rows, asked.steps)
        return
    n = asked.processes
    contestants = {"one, all rows": (1, rows), "one, its rows alone": (1, rows // n), f"{n}": (n, rows)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(asked.rounds):
        for name, (processes, taken) in contestants.items():
            found[name].append(seconds(processes, taken, asked.recipe, asked.steps))
    for clock, of in enumerate(("wall", "processor")):
        medians = [statistics.median(each[clock] for each in rounds) for rounds in found.values()]
        for name, median in zip(found, medians, strict=True):
            print(f"{of} time, {name}: {1000 * median:.1f} ms a step")
        all_rows, alone, several = medians
        print(f"  {all_rows / several:.2f} times as quick as one; overhead {100 * (several / alone - 1):.1f} %")


if __name__ == "__main__":
    main()
