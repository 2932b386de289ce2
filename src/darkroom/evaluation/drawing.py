"""Drawing held-out captions, with what is known of them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from darkroom.core.progress import Progress
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation.alignment import Asked
from darkroom.inference.pipeline import Pipeline


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


def draw(pipeline: Pipeline, split: PreparedSplit, n: int, seed: int, batch_size: int) -> Drawn:
    """Draw the first n captions of `split` with the pipeline's own sampling; picture i from seed + i."""
    n = min(n, len(split))
    takes_prompts = pipeline.info.condition.takes_prompts
    prompts, seeds = prompts_of(pipeline, split, n), list(range(seed, seed + n))
    with Progress(n * pipeline.info.sampling.num_inference_steps, f"draw {split.name}", "picture step") as bar:
        output = pipeline.text_to_image(
            prompts, seeds=seeds, batch_size=batch_size, on_step=lambda step, x, x0: bar.update(len(x))
        )
    asked = Asked(split.captions[:n] if takes_prompts else prompts, split.labels[:n], split.mentioned[:n])
    evaluations = output.network_evaluations / -(-n // batch_size)
    return Drawn(takes_prompts, asked, prompts, seeds, split.images(torch.arange(n)), output.tensor, evaluations)


def prompts_of(pipeline: Pipeline, split: PreparedSplit, n: int) -> list[str]:
    """Prompts for the first n pictures of a split: captions, names of classes, or nothing."""
    condition = pipeline.info.condition
    if condition.of_text:
        return split.captions[:n]
    if condition.of_classes:
        return [condition.classes[i] for i in split.labels[:n, 0].tolist()]
    return [""] * n
