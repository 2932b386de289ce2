"""Drawing held-out captions, with what is known of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.config.buckets import Size
from darkroom.core import device as devices
from darkroom.core.artifact import load_tensors, save_tensors
from darkroom.core.output_shards import Shard, Shards
from darkroom.core.progress import Progress
from darkroom.core.tasks import Kept
from darkroom.data.buckets import squashed
from darkroom.data.halves import half_of, halves
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation.alignment import Asked
from darkroom.inference.options import Request, most_at_once
from darkroom.inference.pipeline import Pipeline
from darkroom.inference.prompts import Prompts

PICTURES, EVALUATIONS = "pictures", "evaluations"  # in the file of a batch


@dataclass(frozen=True)
class Drawn:
    """The first n captions of a split, their real pictures, and what the pipeline drew of them; with buckets, of each
    its share of n, drawn in its size.

    takes_prompts: whether the pipeline does; if not, prompts and captions are empty texts.
    asked: what the pictures are to show.
    prompts: the caption, or the class for a class-conditional model.
    real, pictures: uint8 (n, C, H, W); with buckets, as squares, see `PreparedSplit.squares`.
    evaluations: of the network, mean per batch.
    half: of the data, in which each real picture is, (n,); None where that follows from `real`.
    in_size: each real picture and what was drawn of it, uint8 (C, H, W), in the size of its bucket; None: as above.
    of: the number of each real picture, (n,) int64, which captions of one picture share; None: each has its own.
    """

    takes_prompts: bool
    asked: Asked
    prompts: list[str]
    seeds: list[int]
    real: Tensor
    pictures: Tensor
    evaluations: float
    half: Tensor | None = None
    in_size: list[tuple[Tensor, Tensor]] | None = None
    of: Tensor | None = None

    @property
    def halves(self) -> Tensor:
        """The half of the data in which each real picture is, (n,) int64."""
        return half_of(self.real) if self.half is None else self.half

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Each real picture and what was drawn of it, to be looked at."""
        return list(zip(self.real, self.pictures, strict=True)) if self.in_size is None else self.in_size

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
            half=None if self.half is None else self.half[rows],
            in_size=None if self.in_size is None else [self.in_size[i] for i in rows.tolist()],
            of=None if self.of is None else self.of[rows],
        )

    def distinct(self) -> "Drawn":
        """Those of one caption of each real picture, its first, for figures that take real pictures for a sample."""
        if self.of is None:
            return self
        first = {number: i for i, number in reversed([*enumerate(self.of.tolist())])}
        return self.take(torch.tensor(sorted(first.values())))


def draw(pipeline: Kept[Pipeline], split: PreparedSplit, n: int, seed: int, batch_size: int, shards: Shards) -> Drawn:
    """Draw the first n captions of `split` with the pipeline's own sampling; picture i from seed + i.

    Each batch is a shard, and so the same whoever draws it.
    """
    rows = split.spread(n)
    drawing, n = pipeline(), len(rows)
    takes_prompts = drawing.info.condition.takes_prompts
    prompts, seeds = prompts_of(drawing, split, rows), list(range(seed, seed + n))
    captions = [split.captions[i] for i in rows.tolist()] if takes_prompts else prompts
    asked = Asked(captions, split.labels[rows], split.mentioned[rows])
    real, of = split.squares(rows), None if split.pictures is None else split.pictures[rows]
    if not split.info.buckets:
        pictures, evaluations = draw_prompts(pipeline, prompts, seeds, batch_size, shards, split.name)
        return Drawn(takes_prompts, asked, prompts, seeds, real, pictures, evaluations, of=of)
    pictures, evaluations, pairs = torch.empty_like(real), 0.0, dict[int, tuple[Tensor, Tensor]]()
    for here, theirs in split.by_size(rows):
        size = int(theirs.shape[2]), int(theirs.shape[3])
        mine, name = here.tolist(), f"{split.name}-{size[0]}x{size[1]}"
        chosen = [prompts[i] for i in mine], [seeds[i] for i in mine]
        drawn, evaluated = draw_prompts(pipeline, *chosen, batch_size, shards, name, size)
        pictures[here] = squashed(drawn, split.info.image_size)
        pairs |= dict(zip(mine, zip(theirs, drawn, strict=True), strict=True))
        evaluations += evaluated * len(here) / n
    in_size = [pairs[i] for i in range(n)]
    half = halves(split, rows)
    return Drawn(takes_prompts, asked, prompts, seeds, real, pictures, evaluations, half, in_size, of)


def draw_prompts(
    pipeline: Kept[Pipeline],
    prompts: list[str],
    seeds: list[int],
    batch_size: int,
    shards: Shards,
    name: str,
    size: Size | None = None,
) -> tuple[Tensor, float]:
    """Pictures uint8 (N, C, H, W) of N prompts by the pipeline's own sampling, and how often its network was evaluated,
    mean per batch; name: of what they are drawn for; size: (height, width), None: the pipeline's own."""
    drawing, n = pipeline(), len(prompts)
    wanted = (drawing.info.image_size, drawing.info.image_size) if size is None else size
    task = _Drawing(Kept(partial(_Asked.of, pipeline, prompts, seeds, batch_size)), f"draw {name}", wanted)
    drawing.remarks.warn(prompts, wanted)
    batches = [
        Shard(f"{name}-{number:05d}.safetensors", partial(task.write, rows), len(prompts[rows]))
        for number, rows in enumerate(_batches(drawing, batch_size, n, wanted))
    ]
    drawn = [load_tensors(file) for file in shards.all(batches, task.description, "picture")]
    evaluations = sum(int(batch[EVALUATIONS]) for batch in drawn) / -(-n // batch_size)
    return torch.cat([batch[PICTURES] for batch in drawn]), evaluations


def _batches(pipeline: Pipeline, batch_size: int, n: int, size: Size) -> Iterator[slice]:
    """The pictures of a size that are drawn together."""
    most = min(batch_size, most_at_once(size, pipeline.vae.downscale))
    return (slice(first, min(first + most, n)) for first in range(0, n, most))


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
    size: Size

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
            pictures = asked.pipeline.drawn(request, asked.prompts, rows, self.size)
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


def prompts_of(pipeline: Pipeline, split: PreparedSplit, rows: Tensor) -> list[str]:
    """Prompts for pictures `rows` (n,) of a split: captions, names of classes, or nothing."""
    condition = pipeline.info.condition
    if condition.of_text:
        return [split.captions[i] for i in rows.tolist()]
    if condition.of_classes:
        return [condition.classes[i] for i in split.labels[rows, 0].tolist()]
    return [""] * len(rows)
