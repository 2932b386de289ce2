"""The same prompts and seeds drawn in several ways, and how far their pictures lie apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.config.sampling import SAMPLERS
from darkroom.core.errors import DarkroomError
from darkroom.core.tensors import save_png
from darkroom.core.text import plural
from darkroom.serving.queueing import Watch
from darkroom.studio.request import PageRequest, record_within, remarks
from darkroom.studio.seeds import seeds_in
from darkroom.studio.work import OnProgress, Studio, unseen

WAYS = 8  # that stand beside each other at most
LEVELS = 255


@dataclass(frozen=True)
class Way:
    """A column: a model, and how it draws. label: what stands above its pictures."""

    label: str
    model: str
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Pictures in columns; rows: what stands before each: the prompt and the seed.

    files, pictures: [column][row]; pictures uint8 (C, H, W).
    """

    folder: Path
    labels: list[str]
    rows: list[tuple[str, int]]
    files: list[list[Path]]
    pictures: list[list[Tensor]]
    remarks: list[str]


@dataclass(frozen=True)
class Difference:
    """|a - b|, amplified. file: a picture of it. mean, most: of |a - b| itself, in grey levels."""

    file: Path
    mean: float
    most: int


def ways_of(axis: str, values: Sequence[Any], model: str) -> list[Way]:
    """Columns that differ in one thing.

    Args:
        axis: "models", or a key of `Sampling`: sampler, guidance_scale, num_inference_steps.

    Raises:
        DarkroomError: fewer than two, or too many.
    """
    if not 2 <= len(values) <= WAYS:
        raise DarkroomError(f"compare: {plural(len(values), 'value')} chosen; choose from two to {WAYS}")
    if axis == "models":
        return [Way(name, name) for name in values]
    if axis == "sampler":
        return [_with_sampler(name, model) for name in values]
    if axis == "num_inference_steps":
        if odd := [value for value in values if value != int(value)]:
            raise DarkroomError(f"steps = {odd[0]:g}: give whole numbers")
        return [Way(plural(int(value), "step"), model, {axis: int(value)}) for value in values]
    return [Way(f"guidance {value:g}", model, {axis: float(value)}) for value in values]


def compare(studio: Studio, ways: Sequence[Way], asked: PageRequest, on_progress: OnProgress = unseen) -> Comparison:
    """Draw the same in all ways; what a way says of its sampling goes before what was asked.

    Raises:
        DarkroomError: it is more than the limits allow, or one of the ways cannot be drawn; names it.
    """
    n = len(asked.prompts) * len(seeds_in(asked.seeds, studio.limits))
    studio.limits.check("rows", n * len(ways), "pictures", "compare fewer at a time")
    return studio.in_turn(lambda watch: _drawn(studio, ways, asked, watch, on_progress))


def _drawn(
    studio: Studio, ways: Sequence[Way], asked: PageRequest, watch: Watch, on_progress: OnProgress
) -> Comparison:
    files, pictures, labels = list[list[Path]](), list[list[Tensor]](), list[str]()
    rows, said = list[tuple[str, int]](), dict[str, None]()
    for number, way in enumerate(ways):
        try:
            model = studio.models.model(way.model)
            here = replace(asked, sampling={**asked.sampling, **way.sampling})
            record = record_within(here, model.pipeline, studio.limits.of_model(model.pipeline.info.image_size))
            progress = _progress(on_progress, number, len(ways))
            paths, drawn = studio.drawn_by(model, record, watch, progress)
        except DarkroomError as error:
            raise type(error)(f"{way.label}: {error}") from None
        files.append(paths)
        pictures.append(drawn)
        labels.append(model.key if way.label == way.model else way.label)
        rows = list(zip(record.prompts, record.seeds, strict=True))
        said |= dict.fromkeys([*([model.remark] if model.remark else []), *remarks(record, model.pipeline)])
    return Comparison(studio.new_folder(), labels, rows, files, pictures, list(said))


def _progress(on_progress: OnProgress, before: int, of: int) -> OnProgress:
    """That of one column, `before` of `of` being there."""
    return lambda done, steps: on_progress(before * steps + done, of * steps)


def differences(comparison: Comparison, amplified: float) -> list[list[Difference | None]]:
    """[column][row]: how each picture differs from that of the first column; None where their sizes do."""
    found: list[list[Difference | None]] = []
    for column, pictures in enumerate(comparison.pictures):
        found.append([])
        for row, (one, other) in enumerate(zip(pictures, comparison.pictures[0], strict=True)):
            if one.shape != other.shape:
                found[-1].append(None)
                continue
            apart = (one.int() - other.int()).abs()
            path = comparison.folder / f"difference-{column}-{row}-x{amplified:g}.png"
            save_png(path, (apart * amplified).clamp(0, LEVELS).to(torch.uint8))
            found[-1].append(Difference(path, float(apart.float().mean()), int(apart.max())))
    return found


def _with_sampler(name: str, model: str) -> Way:
    """A sampler that goes from the last time to the first is given the spacing that does."""
    kind = SAMPLERS.classes.get(name.partition(",")[0].strip())
    both = kind is not None and SAMPLERS.of(name.partition(",")[0].strip()).needs_both_ends
    return Way(name, model, {"sampler": name, **({"spacing": "linspace", "omit_last": False} if both else {})})
