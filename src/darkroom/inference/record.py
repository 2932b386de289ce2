"""How a picture was made, kept inside its PNG: enough to make it again, with its batch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from PIL import Image, PngImagePlugin
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from darkroom import __version__
from darkroom.config.base import Precision
from darkroom.config.sampling import Sampling
from darkroom.core.artifact import atomic_path
from darkroom.core.device import execution_profile
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import (
    AT_ONCE,
    FILE_PIXELS,
    JSON_BYTES,
    PICTURES,
    PIXELS,
    SEED,
    WORK,
    check_sampling,
    counted,
)
from darkroom.core.tensors import to_pil
from darkroom.core.text import plural, printable
from darkroom.data.images import MAX_PIXELS, UnusablePictureError
from darkroom.diffusion.generate import ignore_step, sampling_levels
from darkroom.diffusion.samplers._base import OnStep
from darkroom.inference.options import OnEvaluation, Options, check_size, positions
from darkroom.inference.output import PipelineOutput
from darkroom.inference.packing import packed, unpacked
from darkroom.inference.pipeline import Pipeline
from darkroom.inference.record_text import FORMAT, KEY, UNREADABLE, damaged, read_values
from darkroom.interop.lora import MOST
from darkroom.view.grid import captioned_grid, image_grid
from darkroom.view.sheet import GUTTER

INPUTS = ("image", "mask")  # whose text chunks are called "darkroom:NAME"
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class DrawnWith:
    """An adapter that a picture was drawn with.

    file, md5: of the adapter. base: content hash of the network that it was trained on; inputs: {path: content hash} of
    what it was trained from; both as its file says.
    """

    file: str
    md5: str
    strength: Annotated[float, Field(ge=-MOST, le=MOST, allow_inf_nan=False)]
    base: str = ""
    inputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """A request to a pipeline, with the pipeline and the machine that answered it.

    prompts, seeds: of the pictures drawn by one command; batches of `batch_size` are drawn together.
    index: which of them the picture is; None: a grid of all, `columns` beside each other.
    each: how many pictures a prompt has, in a grid with captions; None: it has none.
    scale: pixels of the file's sides for each pixel drawn.
    image, mask: inputs of image to image and inpainting; sources: their files' names and md5.
    model: content hash of the pipeline. profile: see `execution_profile`.
    adapters: that were added to it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    prompts: Annotated[list[str], Field(min_length=1)]
    seeds: list[Index]
    sampling: Sampling
    batch_size: Count
    model: str
    precision: Precision
    profile: dict[str, str]
    negative_prompt: str | None = None
    height: Count | None = None
    width: Count | None = None
    strength: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    index: Index | None = None
    columns: Count = 1
    each: Count | None = None
    scale: Count = 1
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    adapters: list[DrawnWith] = field(default_factory=list)
    image: Image.Image | None = None
    mask: Image.Image | None = None

    def batches(self) -> list["Record"]:
        """A record for each batch."""
        firsts = range(0, len(self.prompts), self.batch_size)
        rows = [slice(first, first + self.batch_size) for first in firsts]
        return [replace(self, prompts=self.prompts[r], seeds=self.seeds[r]) for r in rows]

    def steps(self, pipeline: Pipeline) -> int:
        """How often `on_step` is called, over all batches."""
        if self.strength == 0:
            return 0
        strength = 1.0 if self.strength is None else self.strength
        levels = sampling_levels(self.sampling, pipeline.schedule, pipeline.info.prediction_type, strength)
        return len(self.batches()) * (len(levels) - 1)

    def draw(
        self, pipeline: Pipeline, on_step: OnStep = ignore_step, on_evaluation: OnEvaluation = lambda: None
    ) -> PipelineOutput:
        """The pictures of the prompts; the last two arguments: see `Options`."""
        options: Options = {
            "sampling": self.sampling,
            "seeds": self.seeds,
            "negative_prompt": self.negative_prompt,
            "batch_size": self.batch_size,
            "on_step": on_step,
            "on_evaluation": on_evaluation,
        }
        if self.image is None:
            return pipeline.text_to_image(self.prompts, height=self.height, width=self.width, **options)
        assert self.strength is not None
        if self.mask is None:
            return pipeline.image_to_image(self.prompts, self.image, strength=self.strength, **options)
        return pipeline.inpaint(self.prompts, self.image, self.mask, strength=self.strength, **options)

    def redraw(
        self, pipeline: Pipeline, on_step: OnStep = ignore_step, on_evaluation: OnEvaluation = lambda: None
    ) -> Tensor:
        """What the file shows, uint8 (C, H', W'), drawn in the batches of the first time."""
        drawn = [batch.draw(pipeline, on_step, on_evaluation).tensor for batch in self.batches()]
        return self.file_pixels(torch.cat(drawn))

    def file_pixels(self, pictures: Tensor | Mapping[int, Tensor]) -> Tensor:
        """What the file shows of the pictures uint8 (N, C, H, W) of the prompts: one, or a grid of all; (C, H', W')."""
        if self.index is not None:
            return pictures[self.index].repeat_interleave(self.scale, 1).repeat_interleave(self.scale, 2)
        assert isinstance(pictures, Tensor)
        if self.each is None:
            return image_grid(pictures, self.columns)
        return captioned_grid(pictures, self.prompts[:: self.each], self.columns, self.scale)

    def size(self, pipeline: Pipeline) -> tuple[int, int]:
        """(height, width) in pixels of each picture."""
        if self.image is not None:
            return self.image.height, self.image.width
        return self.height or pipeline.info.image_size, self.width or pipeline.info.image_size

    def check_work(self, pipeline: Pipeline, *, one_file: bool = True) -> None:
        """Refuse what there is no memory or time for, or what this pipeline cannot draw, before any of it is drawn.

        Args:
            one_file: whether one file will show all pictures; False: each goes to its own.

        Raises:
            DarkroomError: names what is too much, the limit and the remedy.
        """
        if [(one.md5, one.strength) for one in self.adapters] != [(a.md5, a.strength) for a in pipeline.adapters]:
            raise DarkroomError(
                "it was drawn with other adapters than this pipeline has; darkroom regenerate finds them by the record"
            )
        (height, width), n, steps = self.size(pipeline), len(self.prompts), self.sampling.num_inference_steps
        downscale, batch = pipeline.vae.downscale, min(self.batch_size, n)
        check_size((height, width), pipeline.unet.fixed_side, downscale)
        at_once = batch * positions((height, width), downscale)
        AT_ONCE.check(f"batch_size = {batch}: positions", at_once, "draw fewer together")
        each = f"of {width} x {height} pixels"
        work = f"{plural(n, 'picture')} {each} in {plural(steps, 'step')}: work"
        WORK.check(work, n * height * width * steps, "draw fewer, smaller or in fewer steps")
        if one_file:
            count = 1 if self.index is not None else n
            gap = GUTTER if count > 1 else 0
            pixels = count * (height * self.scale + gap) * (width * self.scale + gap)
            what = f"{plural(count, 'picture')} {each}, scale = {counted(self.scale)}: size of the file"
            FILE_PIXELS.check(what, pixels, "draw fewer, or with a smaller --scale or --no-grid")

    def check_fits(self) -> None:
        """Refuse a record that is too long for a PNG: written, it could not be read again.

        Raises:
            DarkroomError: names both sizes.
        """
        PICTURES.check("number of pictures of one record", len(self.prompts), "draw fewer at once")
        JSON_BYTES.check("size of what a picture says of itself", len(self._texts()[KEY]), "draw fewer at once")
        size, most = sum(map(len, self._texts().values())), PngImagePlugin.MAX_TEXT_MEMORY
        if size > most:
            raise DarkroomError(
                f"image: {size:,} bytes would go with each picture that is drawn, for it to be made again, and a PNG "
                f"is read with {most:,} at most; give a smaller picture"
            )

    def save(self, path: Path, picture: Tensor) -> None:
        """Write `picture`, uint8 (C, H, W), as a PNG with this record.

        Raises:
            DarkroomError: the file cannot be written.
        """
        info = PngImagePlugin.PngInfo()
        for key, value in self._texts().items():
            info.add_text(key, value)
        try:
            with atomic_path(path) as beside:
                to_pil(picture).save(beside, format="PNG", pnginfo=info)
        except OSError as error:
            raise DarkroomError(f"{path}: cannot be written ({error.strerror}); give another --out") from None

    @classmethod
    def read(cls, path: Path) -> "Record":
        """The record in a PNG.

        Raises:
            DarkroomError: there is no such file, or it is not a PNG of this program, of another format, or damaged.
        """
        values, texts = read_values(path)
        try:
            check_sampling(values.get("sampling"), "sampling", "it is not drawn again")
            packed_inputs = {name: text for name in INPUTS if (text := texts.get(f"{KEY}:{name}")) is not None}
            inputs = {name: unpacked(text, min(PIXELS.most, MAX_PIXELS)) for name, text in packed_inputs.items()}
            record = TypeAdapter(cls).validate_python({**values, **inputs})
            record._check_agrees()
        except (*UNREADABLE, RecursionError, UnusablePictureError) as error:
            raise damaged(path, _reason(error)) from None
        return record

    def _check_agrees(self) -> None:
        """Raise ValueError where one field contradicts another, DarkroomError where it asks for too much."""
        PICTURES.check("number of prompts", len(self.prompts), "it is not drawn again")
        SEED.check("seed", max(self.seeds, default=0), "it is not drawn again")
        for key in ("height", "width", "scale", "columns"):
            PIXELS.check(key, getattr(self, key) or 0, "it is not drawn again")
        if len(self.seeds) != len(self.prompts):
            raise ValueError(f"{plural(len(self.seeds), 'seed')} for {plural(len(self.prompts), 'prompt')}")
        if self.index is not None and self.index >= len(self.prompts):
            raise ValueError(f"index = {self.index} of {plural(len(self.prompts), 'picture')}")
        if (self.strength is None) != (self.image is None):
            raise ValueError("of image and strength one is missing")
        if self.each is not None and len(self.prompts) % self.each:
            raise ValueError(f"{len(self.prompts)} pictures are not {self.each} of each prompt")
        if self.mask is not None and self.image is None:
            raise ValueError("a mask without an image")

    def _texts(self) -> dict[str, str]:
        """The PNG's text chunks."""
        values = {f: v for f, v in vars(self).items() if f not in INPUTS and f != "adapters"}
        if self.adapters:  # without any, a record is as it was before there were adapters
            values["adapters"] = [asdict(adapter) for adapter in self.adapters]
        values |= {"sampling": self.sampling.model_dump(), "format": FORMAT}
        pictures = {name: getattr(self, name) for name in INPUTS}
        inputs = {f"{KEY}:{name}": packed(picture) for name, picture in pictures.items() if picture is not None}
        return {**self._facts(), KEY: json.dumps(values, sort_keys=True), **inputs}

    def _facts(self) -> dict[str, str]:
        """The essence, in words for any picture viewer."""
        i = self.index
        facts = {
            "prompt": "\n".join(dict.fromkeys(self.prompts)) if i is None else self.prompts[i],
            "seed": f"{self.seeds[0]} to {self.seeds[-1]}" if i is None else self.seeds[i],
            "steps": self.sampling.num_inference_steps,
            "guidance_scale": self.sampling.guidance_scale,
            "sampler": self.sampling.sampler.kind,
            "model": self.model,
            "Software": f"Darkroom {__version__}",
        }
        if self.negative_prompt is not None:
            facts["negative_prompt"] = self.negative_prompt
        if self.adapters:
            facts["lora"] = ", ".join(f"{one.file}:{one.strength:g} ({one.md5})" for one in self.adapters)
        return {key: str(value) for key, value in facts.items()}


def drawn_with(pipeline: Pipeline) -> list[DrawnWith]:
    """The adapters of a pipeline, as a record has them."""
    return [
        DrawnWith(printable(one.path.as_posix()), one.md5, one.strength, one.base, dict(one.inputs))
        for one in pipeline.adapters
    ]


def profile(pipeline: Pipeline) -> dict[str, str]:
    """Everything that may change the last bits of a picture: the execution profile, and the version of Darkroom."""
    return {**execution_profile(pipeline.device), "version.darkroom": __version__}


def _reason(error: Exception) -> str:
    """What is wrong, in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
