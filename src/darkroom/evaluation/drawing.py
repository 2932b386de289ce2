"""Drawing held-out captions, with what is known of them."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from darkroom.core.progress import Progress
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation.alignment import Asked
from darkroom.inference.options import Tally
from darkroom.inference.pipeline import Pipeline


@dataclass(frozen=True)
class Drawn:
    """The first n captions of a split, their real pictures, and what the pipeline drew of them.

    asked: whether the pipeline can be asked for anything; if not, prompts and captions are empty words.
    prompts: what the pipeline was asked; for class-conditional models the class, otherwise the caption.
    labels: (n, H) int64, and named: (n, H) bool, as in data.prepared. real, pictures: uint8 (n, C, H, W).
    evaluations: of the network, for each batch in the mean.
    """

    asked: bool
    captions: list[str]
    prompts: list[str]
    seeds: list[int]
    labels: Tensor
    mentioned: Tensor
    real: Tensor
    pictures: Tensor
    evaluations: float

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def wanted(self) -> Asked:
        """What the pictures are to show."""
        return Asked(self.captions, self.labels, self.mentioned)

    def take(self, rows: Tensor) -> "Drawn":
        """Those of rows (n,) int64."""
        chosen = rows.tolist()
        return replace(
            self,
            captions=[self.captions[i] for i in chosen],
            prompts=[self.prompts[i] for i in chosen],
            seeds=[self.seeds[i] for i in chosen],
            labels=self.labels[rows],
            mentioned=self.mentioned[rows],
            real=self.real[rows],
            pictures=self.pictures[rows],
        )


def draw(pipeline: Pipeline, split: PreparedSplit, n: int, seed: int, batch_size: int) -> Drawn:
    """Draw the first n captions of `split` with the pipeline's own sampling; picture i from seed + i."""
    n = min(n, len(split))
    asked = pipeline.info.condition.kind != "none"
    prompts, seeds = prompts_of(pipeline, split, n), list(range(seed, seed + n))
    tally = Tally()
    with Progress(n * pipeline.info.sampling.num_inference_steps, f"draw {split.name}", "picture step") as bar:
        pictures = pipeline.text_to_image(
            prompts,
            seeds=seeds,
            output="tensor",
            batch_size=batch_size,
            on_step=lambda step, x, x0: bar.update(len(x)),
            tally=tally,
        )
    return Drawn(
        asked=asked,
        captions=split.captions[:n] if asked else prompts,
        prompts=prompts,
        seeds=seeds,
        labels=split.labels[:n],
        mentioned=split.mentioned[:n],
        real=split.images(torch.arange(n)),
        pictures=pictures,
        evaluations=tally.evaluations / math.ceil(n / batch_size),
    )


def prompts_of(pipeline: Pipeline, split: PreparedSplit, n: int) -> list[str]:
    """What the pipeline takes for the first n pictures of a split: captions, names of classes, or nothing."""
    condition = pipeline.info.condition
    if condition.kind == "text":
        return split.captions[:n]
    if condition.kind == "class":
        return [condition.classes[i] for i in split.labels[:n, 0].tolist()]
    return [""] * n
