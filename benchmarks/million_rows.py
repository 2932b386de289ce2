"""Training from a million cached latents beside training from a few: memory of the process, and steps a second.

    python benchmarks/million_rows.py --folder /large/scratch                  a million rows, 17 GB
    python benchmarks/million_rows.py --folder /large/scratch --rows 100000    a tenth of it

Moments of 4 x 32 x 32 and a caption of its own for each row, kept as tokens, are written to the folder and removed at
the end. The default recipe's U-Net and text encoder train on all rows and on a few of them, each in a process of its
own, in turns. Memory is what is not a file's (RssAnon), above that of the same training on rows that need none.
Wanted: at most 3 GiB, and 95 % of the steps a second.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from darkroom.config.networks import TokenSizes
from darkroom.config.params import load
from darkroom.config.text_encoder import TrainedTextEncoder
from darkroom.core.device import start
from darkroom.core.rng import generator, seeded
from darkroom.data import conditioning as conditions
from darkroom.data import latents as cache
from darkroom.data.conditioning import Conditioning, ConditioningInfo
from darkroom.data.latents import Latents, LatentsInfo, PreviewMap
from darkroom.diffusion.objective import Objective
from darkroom.diffusion.process import process_of
from darkroom.nn.denoiser.base import build
from darkroom.nn.text.clip import CLIPTextModel
from darkroom.training.engine.context import TrainingContext
from darkroom.training.frozen_text import FrozenTextEncoder
from darkroom.training.latent_batches import LatentBatches
from darkroom.training.unet import UNetTask, spec_of
from synthetic import PROJECT

SHAPE = (4, 32, 32)
HELD_OUT = 64
BY = ("seconds", "cpu")
PARAMS = load(PROJECT / "recipes" / "scenes.yaml")
TEXT = PARAMS.setup_text_encoder
assert isinstance(TEXT, TrainedTextEncoder)
TOKENS, WIDTH = TEXT.text.max_length, TEXT.text.hidden_size
INFO = ConditioningInfo("text", "zeros", TOKENS, WIDTH, [])


def write(folder: Path, rows: int) -> None:
    """Both caches, shard by shard; all shards of latents begin with the same rows, for drawing them takes longer."""
    splits = {"train": rows, "validation": HELD_OUT}
    (folder / "latents").mkdir(parents=True)
    (folder / "conditioning").mkdir()
    mean = torch.randn((min(cache.SHARD_ROWS, rows), *SHAPE), generator=generator(0, "latents")).half()
    logvar = torch.full_like(mean, -4.0)
    for split, n in splits.items():
        for number, shard in enumerate(cache.shard_rows(n)):
            path = folder / "latents" / cache.shard_name(split, number)
            cache.write_shard(path, (mean[: len(shard)], logvar[: len(shard)]), deterministic=False)
    info = LatentsInfo(1.0, "none", SHAPE, False, splits)
    cache.write_description(folder / "latents", info, PreviewMap(torch.zeros(3, SHAPE[0]), torch.zeros(3)))
    index = {split: torch.arange(n) for split, n in splits.items()}
    conditions.write_description(folder / "conditioning", INFO, index, torch.zeros(TOKENS, WIDTH))
    for number, first in enumerate(range(0, rows, conditions.SHARD_ROWS)):
        ids = captions(min(conditions.SHARD_ROWS, rows - first), number)
        conditions.write_shard(folder / "conditioning" / conditions.shard_name("tokens", number), "tokens", ids)


def captions(n: int, number: int) -> Tensor:
    """Token ids (n, TOKENS) of words drawn at random, the last of which is the end."""
    assert isinstance(TEXT, TrainedTextEncoder)
    ids = torch.randint(TEXT.text.vocab_size - 2, (n, TOKENS), generator=generator(0, "captions", number))
    ids[:, -1] = TEXT.text.vocab_size - 1
    return ids


def task(train: Latents, held_out: Latents, told: Conditioning, batch_size: int) -> UNetTask:
    """The default recipe's training of a U-Net, for latents of SHAPE."""
    assert isinstance(TEXT, TrainedTextEncoder)
    p, device = PARAMS.train_unet, start()
    end = TEXT.text.vocab_size - 1
    spec = spec_of(p, SHAPE, INFO)
    with seeded(0, "networks"):
        unet = build(spec.network, spec.sizes).to(device)
        sizes = TokenSizes(bos_token_id=end - 1, eos_token_id=end, pad_token_id=end)
        encoder = CLIPTextModel(TEXT.text.learnt(TEXT.text.vocab_size), sizes).to(device).requires_grad_(False)
    context = TrainingContext(batch_size, p.seed, p.precision, device)
    told = told.encoded_by(FrozenTextEncoder(encoder, device))
    data = LatentBatches(train, held_out, told, context, p.condition_dropout, p.horizontal_flip, HELD_OUT)
    return UNetTask(unet, Objective(process_of(p.process), p.objective), data)


class Trained:
    """A task in training, by AdamW."""

    def __init__(self, trained: UNetTask) -> None:
        self.task, self.step = trained, 0
        self.optimizer = torch.optim.AdamW(trained.network.parameters(), lr=1e-5)

    def steps(self, number: int) -> dict[str, float]:
        """Make so many; seconds, and those of them that processors were at work."""
        began = time.perf_counter(), time.process_time()
        for _ in range(number):
            self.optimizer.zero_grad(set_to_none=True)
            batch = self.task.loss.inputs(self.step, slice(0, self.task.context.batch_size))
            self.task.loss.compute(batch.to(self.task.context.device))["loss"].backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.step += 1
        return {"seconds": time.perf_counter() - began[0], "cpu": time.process_time() - began[1]}


def work(folder: Path, given: argparse.Namespace) -> None:
    """In a process of its own: for every line of stdin make a turn's steps, and say what they took."""
    mean = torch.zeros((given.batch_size, *SHAPE)).half()
    none = Conditioning(
        INFO,
        {split: torch.arange(given.batch_size) for split in ("train", "validation")},
        captions(given.batch_size, 0).int(),
        torch.zeros(TOKENS, WIDTH),
    )
    bare = Trained(task(Latents(mean, mean, 1.0), Latents(mean, mean, 1.0), none, given.batch_size))
    bare.steps(3)
    before = anonymous()
    train, held_out = (Latents.read(folder / "latents", split) for split in ("train", "validation"))
    old = bare.task.data
    told = Conditioning.read(folder / "conditioning").encoded_by(old.conditioning.encode or (lambda ids: ids))
    bare.task.data = replace(old, train=train, held_out=held_out, conditioning=told)
    for _ in sys.stdin:
        print(json.dumps({**bare.steps(given.steps), "before": before, "now": anonymous()}), flush=True)


def anonymous() -> int:
    """Bytes of this process's memory that are not a file's."""
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def compare(given: argparse.Namespace) -> None:
    """Write both sets, train on them in turns, and print what came of it."""
    root = given.folder / "million_rows"
    sizes = {"few": min(given.few, given.rows), "all": given.rows}
    try:
        began = time.perf_counter()
        for name, rows in sizes.items():
            write(root / name, rows)
        on_disk = sum(file.stat().st_size for file in (root / "all").rglob("*") if file.is_file())
        print(f"{given.rows:,} rows, {on_disk / 1e9:.1f} GB, written in {time.perf_counter() - began:.0f} s")
        found = turns(root, list(sizes), given)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print("| rows | s a step | CPU s a step | RssAnon of the network, MiB | above it, MiB |\n|---|---|---|---|---|")
    took = {by: {name: [turn[by] / given.steps for turn in of] for name, of in found.items()} for by in BY}
    for name, of in found.items():
        base, most = of[0]["before"], max(turn["now"] for turn in of)
        wall, cpu = (statistics.median(took[by][name]) for by in BY)
        print(f"| {sizes[name]:,} | {wall:.3f} | {cpu:.3f} | {base / 2**20:.0f} | {(most - base) / 2**20:.0f} |")
    for by in BY:
        pairs = [few / many for few, many in zip(*took[by].values(), strict=True)]
        print(f"steps of all rows per step of few, by {by}: {statistics.median(pairs):.1%}, in pairs of turns")


def turns(root: Path, names: list[str], given: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """What each process said of its turns; a first one of each is not counted."""
    command = [sys.executable, __file__, *sys.argv[1:], "--work"]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen([*command, str(root / name)], stdin=pipe, stdout=pipe, text=True) for name in names]
    try:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for turn in range(given.turns + 1):
            for name, process in zip(names, workers, strict=True):
                answer = asked(process.stdin, process.stdout)
                if turn:
                    found[name].append(answer)
        return found
    finally:
        for process in workers:
            process.kill()
            process.wait()


def asked(stdin: IO[str] | None, stdout: IO[str] | None) -> dict[str, float]:
    """A turn of a process."""
    assert stdin is not None
    assert stdout is not None
    stdin.write("turn\n")
    stdin.flush()
    line = stdout.readline()
    if not line:
        sys.exit("million_rows: a process ended")
    answer: dict[str, float] = json.loads(line)
    return answer


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the rows are written for as long as it takes")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=5_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5, help="of a turn")
    parser.add_argument("--turns", type=int, default=10, help="of each")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work is not None:
        work(given.work, given)
    else:
        compare(given)


if __name__ == "__main__":
    main()
