"""From what a person asks for to its record, which goes into the PNG, whether a command draws it or a page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from darkroom.core.tensors import to_pil
from darkroom.inference.defaults import BATCH_SIZE
from darkroom.inference.editing import as_pictures, mask_levels
from darkroom.inference.options import check_size, most_at_once
from darkroom.inference.pipeline import Pipeline
from darkroom.inference.record import Record, drawn_with, profile


@dataclass(frozen=True)
class DrawingRequest:
    """Pictures to be drawn.

    prompts, seeds: of each picture. sampling: what differs from the pipeline's own.
    strength: where there is an image. pictures: "image" and "mask"; sources: their files' names and md5.
    columns, each, scale: of a grid, see `Record`; None: about as many columns as rows.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    negative: str | None = None
    height: int | None = None
    width: int | None = None
    strength: float | None = None
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    columns: int | None = None
    each: int | None = None
    scale: int = 1


def record_of(pipeline: Pipeline, wanted: DrawingRequest) -> Record:
    """What is to be drawn, checked against the model.

    Raises:
        DarkroomError: a sampling or a size that the model cannot draw with, or pictures that cannot be used.
    """
    image, mask = wanted.pictures.get("image"), wanted.pictures.get("mask")
    record = Record(
        prompts=list(wanted.prompts),
        seeds=list(wanted.seeds),
        sampling=pipeline.sampling(sampling=pipeline.info.sampling.changed(**wanted.sampling)),
        batch_size=BATCH_SIZE,
        model=pipeline.model_hash,
        precision=pipeline.precision,
        profile=profile(pipeline),
        negative_prompt=wanted.negative,
        height=wanted.height,
        width=wanted.width,
        strength=wanted.strength,
        columns=wanted.columns or math.ceil(math.sqrt(len(wanted.prompts))),
        each=wanted.each,
        scale=wanted.scale,
        sources={name: dict(source) for name, source in wanted.sources.items()},
        adapters=drawn_with(pipeline),
        image=image,
    )
    size, downscale = record.size(pipeline), pipeline.vae.downscale
    check_size(size, pipeline.unet.fixed_side, downscale)
    return replace(
        record,
        batch_size=min(BATCH_SIZE, most_at_once(size, downscale)),
        image=None if image is None else to_pil(as_pictures(image, pipeline.info.channels)[0]),
        mask=None if mask is None else to_pil(mask_levels(mask)),
    )
