"""What checkpoints cost: a recipe's U-Net in training, with its optimisers, its average and the best weights so far.

    python benchmarks/checkpoints.py                  the default recipe
    python benchmarks/checkpoints.py --recipe photos-ddpm

Prints the size of a checkpoint, the median seconds of writing one (to the disk itself: fsync) and of going on from
one, and the share of a training's time that writing takes at the interval that is set (in a fresh project two
minutes). At most SHARE is wanted; where writing is so slow that it would be more, checkpoints are made at greater
intervals, which is printed too.
"""

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

import torch

from darkroom.config.params import Params, load
from darkroom.core import device as devices
from darkroom.core.checkpoint import SHARE, Checkpoints, Stateful
from darkroom.core.interruption import Interruption
from darkroom.training.engine.best import Best
from darkroom.training.engine.curves import Curves
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Phase
from synthetic import PROJECT, network


def state(params: Params) -> dict[str, Stateful]:
    """All that the training of the U-Net saves, after a step of its optimisers."""
    p, unet = params.train_unet, network(params)
    phase = Phase("", unet, p, lambda step, rows: {})
    for weight in unet.parameters():
        weight.grad = torch.full_like(weight, 1e-3)
    for optimizer in phase.optimizers:
        optimizer.step()
    ema, best, curves = EMA(unet, p.ema_half_life), Best(), Curves(p.log_every, lambda step, values: None)
    best.consider(1, 1.0, ema.network)
    for step in range(1, p.steps + 1):
        curves(step, {"loss": 1 / step, "gradient_norm": 1 / step, "learning_rate": 1 / step})
    print(f"weights of the U-Net: {sum(weight.numel() for weight in unet.parameters()):,}")
    return {"phase 0": phase, "ema": ema, "curves": curves, "best": best}


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="scenes", help="name of a recipe (default: scenes)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured (default: here)", default=Path())
    given = parser.parse_args()
    logging.getLogger("darkroom").setLevel(logging.ERROR)
    settings = devices.runtime()
    devices.start(settings)
    parts = state(load(PROJECT / "recipes" / f"{given.recipe}.yaml"))
    write, read = [], []
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        folder = Path(scratch) / "training"
        for step in range(1, given.rounds + 1):
            checkpoints = Checkpoints(folder, {}, 0, 1, Interruption())
            began = time.perf_counter()
            checkpoints.after(step, parts, given.rounds)
            write.append(time.perf_counter() - began)
            began = time.perf_counter()
            assert checkpoints.resume(parts, given.rounds) == step
            read.append(time.perf_counter() - began)
        newest = max(folder.glob("step_*"))
        size = sum(file.stat().st_size for file in newest.iterdir())
    seconds, wanted = statistics.median(write), 60 * settings.checkpoint_minutes
    interval = max(wanted, seconds / SHARE)
    print(f"size of a checkpoint: {size / 2**20:.1f} MiB")
    print(
        f"writing one: {seconds:.3f} s (slowest {max(write):.3f} s); going on from one: {statistics.median(read):.3f} s"
    )
    print(f"every {interval:.0f} s (at least {wanted:.0f} s are set): {100 * seconds / interval:.2f} % of the time")


if __name__ == "__main__":
    main()
