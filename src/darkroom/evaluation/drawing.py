"""Drawing held-out captions, with what is known of them."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from darkroom.core import device as devices
from darkroom.core.artifact import load_tensors, save_tensors
from darkroom.core.pools import Kept
from darkroom.core.progress import Progress
from darkroom.core.shards import Shard, Shards
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation.alignment import Asked
from darkroom.inference.pipeline import Pipeline

PICTURES, EVALUATIONS = "pictures", "evaluations"  # in the file of a batch


@dataclass(frozen=True)
class Drawn:
    """The first n captions of a split, their real pictures, and what the pipeline drew of them.

    takes_prompts: whether the pipeline does; if not, prompts and captions are empty texts.
    asked: what the pictures are to show.
    prompts: the caption, or the class for a class-conditional model.
    real, pictures: uint8 (n, C, H, W).
    evaluations: of the network, mean per batch.
    """

    takes_prompts: bool
    asked: Asked
    prompts: list[str]
    seeds: list[int]
    real: Tensor
    pictures: Tensor
    evaluations: float

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, rows: Tensor) -> "Drawn":
        """Those of rows (n,) int64."""
        return replace(
            self,
            asked=self.asked.take(rows),
            prompts=[self.prompts[i] for i in rows.tolist()],
            seeds=[self.seeds[i] for i in rows.tolist()],
            real=self.real[rows],
            pictures=self.pictures[rows],
        )


def draw(pipeline: Kept[Pipeline], split: PreparedSplit, n: int, seed: int, batch_size: int, shards: Shards) -> Drawn:
    """Draw the first n captions of `split` with the pipeline's own sampling; picture i from seed + i.

    Each batch is a shard, and so the same whoever draws it.
    """
    n = min(n, len(split))
    info = pipeline().info
    takes_prompts = info.condition.takes_prompts
    prompts, seeds = prompts_of(pipeline(), split, n), list(range(seed, seed + n))
    made = shards.all(
        [
            Shard(
                f"{split.name}-{number:05d}.safetensors",
                _Batch(pipeline, f"draw {split.name}", prompts[rows], seeds[rows], (rows.start, n)),
                len(prompts[rows]),
            )
            for number, rows in enumerate(slice(first, first + batch_size) for first in range(0, n, batch_size))
        ],
        f"draw {split.name}",
        "picture",
    )
    drawn = [load_tensors(file) for file in made]
    asked = Asked(split.captions[:n] if takes_prompts else prompts, split.labels[:n], split.mentioned[:n])
    evaluations = sum(int(batch[EVALUATIONS]) for batch in drawn) / len(drawn)
    pictures = torch.cat([batch[PICTURES] for batch in drawn])
    return Drawn(takes_prompts, asked, prompts, seeds, split.images(torch.arange(n)), pictures, evaluations)


@dataclass(frozen=True)
class _Batch:
    """What draws the pictures of a batch; rows: its first, and how many there are in all."""

    pipeline: Kept[Pipeline]
    description: str
    prompts: list[str]
    seeds: list[int]
    rows: tuple[int, int]

    def __call__(self, path: Path) -> None:
        pipeline = self.pipeline()
        first, n = self.rows
        steps = pipeline.info.sampling.num_inference_steps
        with Progress(n * steps, self.description, "picture step") as bar:
            bar.start_at(first * steps)
            output = pipeline.text_to_image(
                self.prompts,
                seeds=self.seeds,
                batch_size=len(self.prompts),
                on_step=lambda step, x, x0: bar.update(len(x)),
            )
        save_tensors(path, {PICTURES: output.tensor, EVALUATIONS: torch.tensor(output.network_evaluations)})


def kept_pipeline(folder: Path) -> Kept[Pipeline]:
    """The pipeline at `folder`, on the device of the process that draws."""
    return Kept(partial(_pipeline, folder))


def _pipeline(folder: Path) -> Pipeline:
    return Pipeline.from_pretrained(folder, device=devices.current())


def prompts_of(pipeline: Pipeline, split: PreparedSplit, n: int) -> list[str]:
    """Prompts for the first n pictures of a split: captions, names of classes, or nothing."""
    condition = pipeline.info.condition
    if condition.of_text:
        return split.captions[:n]
    if condition.of_classes:
        return [condition.classes[i] for i in split.labels[:n, 0].tolist()]
    return [""] * n
