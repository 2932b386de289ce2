"""What a page asks for, brought within the limits before any work is done for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from darkroom.core.artifact import content_hash
from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.inference.editing import check_strength
from darkroom.inference.pipeline import Pipeline
from darkroom.inference.record import Record
from darkroom.inference.record_text import open_picture
from darkroom.inference.request import DrawingRequest, record_of
from darkroom.inference.words import Remarks, check_prompt, without_marks
from darkroom.serving.limits import Limits
from darkroom.studio.seeds import seeds_in


@dataclass(frozen=True)
class Start:
    """A picture to start from. mask: light where it is to be drawn anew; None: everywhere.

    fit: whether it is cropped and scaled to the size that the model draws.
    """

    picture: Path
    strength: float
    mask: Image.Image | None = None
    fit: bool = True


@dataclass(frozen=True)
class PageRequest:
    """Pictures that a page asks for; None, and "" of the negative prompt: as the model has it.

    prompts: each with all seeds. sampling: steps, guidance and so on, as `Sampling.changed` takes them.
    """

    prompts: Sequence[str]
    seeds: str = "0"
    negative: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    width: int | None = None
    height: int | None = None
    start: Start | None = None


def record_within(asked: PageRequest, pipeline: Pipeline, limits: Limits) -> Record:
    """The record of what is to be drawn.

    Args:
        limits: of requests, as they hold for this model.

    Raises:
        LimitError: more is asked for than they allow; names the value, the limit and its variable.
        DarkroomError: something of it makes no sense, or is more than any drawing may take.
    """
    prompts = [_text(prompt, "prompt", limits) for prompt in asked.prompts]
    negative = _text(asked.negative, "negative_prompt", limits) if asked.negative.strip() else None
    seeds = seeds_in(asked.seeds, limits)
    limits.check("rows", len(prompts) * len(seeds), "pictures", "give fewer prompts or seeds")
    sampling = {name: value for name, value in asked.sampling.items() if value not in (None, "")}
    if (steps := sampling.get("num_inference_steps")) is not None:
        limits.check("steps", steps, "num_inference_steps", "ask for fewer")
    side = pipeline.info.image_size
    width, height = (
        None if asked.start or pixels in (None, side) else pixels for pixels in (asked.width, asked.height)
    )
    limits.check("pixels", (width or side) * (height or side), "pixels of a picture", "ask for a smaller one")
    wanted = DrawingRequest(
        [prompt for prompt in prompts for _ in seeds], seeds * len(prompts), sampling, negative, height, width
    )
    if asked.start is not None:
        wanted = _starting(wanted, asked.start, side, limits)
    record = record_of(pipeline, wanted)
    first = replace(
        record, prompts=record.prompts[: record.batch_size], seeds=record.seeds[: record.batch_size], index=0
    )
    first.check_work(pipeline)
    first.check_fits()
    record.check_work(pipeline, one_file=False)
    return record


def remarks(record: Record, pipeline: Pipeline) -> list[str]:
    """What training never showed of a request, a line each: words, and a size."""
    texts = [*record.prompts, *([record.negative_prompt] if record.negative_prompt else [])]
    return Remarks(pipeline.info.image_size, pipeline.remarks.words, pipeline.info.sizes).new(
        texts, record.size(pipeline)
    )


def opened(path: Path, side: int, limits: Limits, fit: bool) -> Image.Image:
    """A picture to start from, within the limits.

    Args:
        side: pixels of what the model draws. fit: whether it is cropped and scaled to that.
    """
    limits.check("picture_bytes", path.stat().st_size, "bytes of the picture", "give a smaller file")
    picture = open_picture(path)
    if fit and picture.size != (side, side):
        picture = ImageOps.fit(picture.convert("RGBA" if picture.has_transparency_data else "RGB"), (side, side))
    pixels = picture.width * picture.height
    limits.check("pixels", pixels, "pixels of the picture", "have it fitted to the model, or give a smaller one")
    return picture


def mask_of(layers: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image:
    """What was painted, as a mask of a picture's size (width, height): white where most of a pixel is covered.

    Raises:
        DarkroomError: nothing was painted.
    """
    covered = Image.new("L", size)
    for layer in layers:
        alpha = layer.convert("RGBA").getchannel("A").resize(size, Image.Resampling.BOX)
        covered = Image.composite(Image.new("L", size, 255), covered, alpha.point(lambda level: 255 * (level >= 128)))
    if not covered.getbbox():
        raise DarkroomError("mask: nothing is painted; paint over the part that is to be drawn anew")
    return covered


def _starting(wanted: DrawingRequest, start: Start, side: int, limits: Limits) -> DrawingRequest:
    """With a picture, and perhaps a mask."""
    check_strength(start.strength)
    pictures = {"image": opened(start.picture, side, limits, start.fit)}
    if start.mask is not None:
        pictures["mask"] = start.mask
    source = {"name": printable(start.picture.name), "md5": content_hash(start.picture)}
    return replace(wanted, strength=start.strength, pictures=pictures, sources={"image": source})


def _text(text: str, what: str, limits: Limits) -> str:
    limits.check("prompt_bytes", len(text.encode("utf-8", "surrogatepass")), f"bytes of {what}", "give a shorter text")
    return check_prompt(without_marks(text), what)
