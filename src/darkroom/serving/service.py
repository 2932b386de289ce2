"""From the rows of a request to pictures: everything is checked before any work, and the work is bounded."""

import base64
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from darkroom.core.errors import DarkroomError
from darkroom.data.images import FORMATS, UnusablePictureError, decode
from darkroom.inference.defaults import BATCH_SIZE, STRENGTH
from darkroom.inference.editing import check_strength
from darkroom.inference.pipeline import Pipeline
from darkroom.inference.words import check_prompt
from darkroom.serving.limits import Limits
from darkroom.serving.queueing import Queue, Watch

LARGEST_SEED = 2**63 - 1
PIXELS_AT_ONCE = 512 * 512


@dataclass(frozen=True)
class Row:
    """A row of a request. file: of the picture to start from; None: none."""

    prompt: str
    seed: int
    file: bytes | None


@dataclass(frozen=True)
class CheckedRequest:
    """A request within the limits. sampling: options for the pipeline's methods."""

    rows: list[Row]
    sampling: dict[str, Any]
    strength: float


class Service:
    """A pipeline that many ask at once."""

    def __init__(self, pipeline: Pipeline, limits: Limits) -> None:
        self.pipeline = pipeline
        self.limits = limits.of_model(pipeline.info.image_size)
        self._queue = Queue(self.limits)

    def draw(self, rows: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> list[Image.Image]:
        """A picture for each row; that of row i is drawn from `seed` + i.

        Args:
            rows: each with a "prompt" and, if wished, an "image": a picture file in base64.
            params: num_inference_steps, guidance_scale, sampler, seed, strength, negative_prompt; None or "" where the
                pipeline's own holds.

        Raises RefusedError: more is asked for than the limits allow, or it has to stop. DarkroomError: something of it
        makes no sense.
        """
        watch = Watch(self.limits)
        asked = self.checked(rows, params)
        return self._queue.do(lambda: self._draw(asked, watch), watch)

    def checked(self, rows: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> CheckedRequest:
        """The request, if nothing of it is beyond the limits; no picture is decoded for it, and no network asked."""
        self.limits.check("rows", len(rows), "rows", "send fewer at a time")
        options = {name: value for name, value in params.items() if value not in (None, "")}
        seed, strength = int(options.pop("seed", 0)), float(options.pop("strength", STRENGTH))
        if not 0 <= seed <= LARGEST_SEED:
            raise DarkroomError(f"seed = {seed}: give 0 or more")
        check_strength(strength)
        if "num_inference_steps" in options:
            self.limits.check(
                "steps", options["num_inference_steps"], "num_inference_steps", "ask for fewer, or set it higher there"
            )
        if "negative_prompt" in options:
            self._check_text(options["negative_prompt"], "negative_prompt")
        sampling = {name: value for name, value in options.items() if name != "negative_prompt"}
        self.pipeline.sampling(**sampling)
        found = []
        for index, row in enumerate(rows):
            self._check_text(row["prompt"], f"prompt of row {index}")
            found.append(Row(row["prompt"], seed + index, self._file(row.get("image"), index)))
        return CheckedRequest(found, options, strength)

    def _check_text(self, text: object, what: str) -> None:
        if isinstance(text, str):
            size = len(text.encode("utf-8", "surrogatepass"))
            self.limits.check("prompt_bytes", size, f"bytes of {what}", "give a shorter text")
        check_prompt(text, what)

    def _file(self, text: Any, index: int) -> bytes | None:
        """A row's picture to start from; None where it has none. What the file says of its size is within the limits.

        Raises LimitError: it is too large. DarkroomError: it is not base64.
        """
        if text is None or text == "" or (isinstance(text, float) and math.isnan(text)):
            return None
        what = f"image of row {index}"
        if not isinstance(text, str):
            raise _unusable(what, "not base64")
        self.limits.check("picture_bytes", len(text) * 3 // 4, f"bytes of {what}", "send a smaller file")
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError:
            raise _unusable(what, "not base64") from None
        self.limits.check("pixels", _pixels(data), f"pixels of {what}", "send a smaller picture")
        return data

    def _draw(self, asked: CheckedRequest, watch: Watch) -> list[Image.Image]:
        """Rows of one kind and size together, as many at once as a step is quick and small with."""
        native = self.pipeline.info.image_size, self.pipeline.info.image_size
        starts = [_decoded(row.file, index, self.limits.pixels) for index, row in enumerate(asked.rows)]
        drawn: dict[int, Image.Image] = {}
        most = min(PIXELS_AT_ONCE, BATCH_SIZE * native[0] * native[1])
        kinds = [None if start is None else start.size for start in starts]
        for size in dict.fromkeys(kinds):
            indices = [index for index, kind in enumerate(kinds) if kind == size]
            width, height = size or native
            at_once = max(1, min(BATCH_SIZE, most // (width * height)))
            for first in range(0, len(indices), at_once):
                here = indices[first : first + at_once]
                watch.check()
                prompts = [asked.rows[index].prompt for index in here]
                seeds = [asked.rows[index].seed for index in here]
                options = {"seeds": seeds, "on_evaluation": watch.check, **asked.sampling}
                inputs = [start for index in here if (start := starts[index]) is not None]
                if inputs:
                    output = self.pipeline.image_to_image(prompts, inputs, strength=asked.strength, **options)
                else:
                    output = self.pipeline.text_to_image(prompts, **options)
                drawn |= dict(zip(here, output.images, strict=True))
        return [drawn[index] for index in range(len(starts))]


def _pixels(data: bytes) -> float:
    """How many a picture file says it has; 0 where it cannot be opened, for which `decode` has the words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                return opened.width * opened.height
    except Image.DecompressionBombError:
        return math.inf
    except Exception:
        return 0


def _decoded(data: bytes | None, index: int, most_pixels: int) -> Image.Image | None:
    """Raises:
    DarkroomError: the picture cannot be used.
    """
    try:
        return None if data is None else decode(data, most_pixels)
    except UnusablePictureError as error:
        raise _unusable(f"image of row {index}", str(error)) from None


def _unusable(what: str, why: str) -> DarkroomError:
    return DarkroomError(f"{what}: {why}; send a picture file in base64, such as a PNG")
