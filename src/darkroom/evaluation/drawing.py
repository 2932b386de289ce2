"""Drawing held-out captions, with what is known of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.core import device as devices
from darkroom.core.artifact import load_tensors, save_tensors
from darkroom.core.output_shards import Shard, Shards
from darkroom.core.progress import Progress
from darkroom.core.tasks import Kept
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation.alignment import Asked
from darkroom.inference.options import Request, most_at_once
from darkroom.inference.pipeline import Pipeline
from darkroom.inference.prompts import Prompts

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
    drawing = pipeline()
    takes_prompts = drawing.info.condition.takes_prompts
    prompts, seeds = prompts_of(drawing, split, n), list(range(seed, seed + n))
    pictures, evaluations = draw_prompts(pipeline, prompts, seeds, batch_size, shards, split.name)
    asked = Asked(split.captions[:n] if takes_prompts else prompts, split.labels[:n], split.mentioned[:n])
    return Drawn(takes_prompts, asked, prompts, seeds, split.images(torch.arange(n)), pictures, evaluations)


def draw_prompts(
    pipeline: Kept[Pipeline], prompts: list[str], seeds: list[int], batch_size: int, shards: Shards, name: str
) -> tuple[Tensor, float]:
    """Pictures uint8 (N, C, H, W) of N prompts by the pipeline's own sampling, and how often its network was evaluated,
    mean per batch; name: of what they are drawn for."""
    drawing, n = pipeline(), len(prompts)
    task = _Drawing(Kept(partial(_Asked.of, pipeline, prompts, seeds, batch_size)), f"draw {name}")
    drawing.remarks.warn(prompts, (drawing.info.image_size, drawing.info.image_size))
    batches = [
        Shard(f"{name}-{number:05d}.safetensors", partial(task.write, rows), len(prompts[rows]))
        for number, rows in enumerate(_batches(drawing, batch_size, n))
    ]
    drawn = [load_tensors(file) for file in shards.all(batches, task.description, "picture")]
    evaluations = sum(int(batch[EVALUATIONS]) for batch in drawn) / -(-n // batch_size)
    return torch.cat([batch[PICTURES] for batch in drawn]), evaluations


def _batches(pipeline: Pipeline, batch_size: int, n: int) -> Iterator[slice]:
    """The pictures that are drawn together."""
    side = pipeline.info.image_size
    size = min(batch_size, most_at_once((side, side), pipeline.vae.downscale))
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


@dataclass(frozen=True)
class _Asked:
    """All that is to be drawn, its prompts encoded together: a batch's are the same to the bit wherever it is drawn."""

    pipeline: Pipeline
    request: Request
    prompts: Prompts

    @classmethod
    def of(cls, pipeline: Kept[Pipeline], prompts: list[str], seeds: list[int], batch_size: int) -> "_Asked":
        drawing = pipeline()
        request = drawing.request(prompts, {"seeds": seeds, "batch_size": batch_size})
        with torch.no_grad():
            return cls(drawing, request, drawing.prompts(request.prompts))


@dataclass(frozen=True)
class _Drawing:
    asked: Kept[_Asked]
    description: str

    def write(self, rows: slice, path: Path) -> None:
        """Draw a batch."""
        asked = self.asked()
        info, evaluations = asked.pipeline.info, 0

        def counted() -> None:
            nonlocal evaluations
            evaluations += 1

        steps = info.sampling.num_inference_steps
        with Progress(len(asked.request.prompts) * steps, self.description, "picture step") as bar:
            bar.start_at(rows.start * steps)
            request = replace(asked.request, on_step=lambda step, x, x0: bar.update(len(x)), on_evaluation=counted)
            pictures = asked.pipeline.drawn(request, asked.prompts, rows, (info.image_size, info.image_size))
        save_tensors(path, {PICTURES: pictures, EVALUATIONS: torch.tensor(evaluations)})


def kept_pipeline(folder: Path, sampling: Mapping[str, Any] | None = None) -> Kept[Pipeline]:
    """The pipeline at `folder`, on the device of the process that draws; sampling: fields of `Sampling` in place of its
    own."""
    return Kept(partial(_pipeline, folder, dict(sampling or {})))


def _pipeline(folder: Path, sampling: Mapping[str, Any]) -> Pipeline:
    pipeline = Pipeline.from_pretrained(folder, device=devices.current())
    if not sampling:
        return pipeline
    chosen = pipeline.sampling(sampling=pipeline.info.sampling.changed(**sampling))
    return replace(pipeline, info=replace(pipeline.info, sampling=chosen))


def prompts_of(pipeline: Pipeline, split: PreparedSplit, n: int) -> list[str]:
    """Prompts for the first n pictures of a split: captions, names of classes, or nothing."""
    condition = pipeline.info.condition
    if condition.of_text:
        return split.captions[:n]
    if condition.of_classes:
        return [condition.classes[i] for i in split.labels[:n, 0].tolist()]
    return [""] * n
