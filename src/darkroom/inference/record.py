"""How a picture was made, kept inside its PNG: enough to make it again, with the batch it came from."""

import base64
import binascii
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from darkroom import __version__
from darkroom.core.artifact import whole
from darkroom.core.choices import Precision
from darkroom.core.device import execution_profile
from darkroom.core.errors import DarkroomError
from darkroom.core.tensors import image_grid, to_pil
from darkroom.data.images import UnusablePictureError, decode
from darkroom.diffusion.generate import Sampling
from darkroom.diffusion.samplers import OnStep, ignore_step
from darkroom.inference.options import Options
from darkroom.inference.pipeline import Pipeline

KEY, INPUTS = "darkroom", ("image", "mask")  # names of the PNG's text chunks, the inputs' after "darkroom:"
FORMAT = 1


@dataclass(frozen=True)
class Record:
    """A request to a pipeline, with the pipeline and the place that answered it.

    prompts, seeds: of the pictures drawn by one command; batches of `batch_size` are drawn together.
    index: which of them the picture is; None: a grid of all, `columns` wide.
    image, mask: what was given, for image to image and inpainting; sources: their files' names and md5.
    model: content hash of the pipeline. profile: see `execution_profile`.
    """

    prompts: list[str]
    seeds: list[int]
    sampling: Sampling
    batch_size: int
    model: str
    precision: Precision
    profile: dict[str, str]
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    strength: float | None = None
    index: int | None = None
    columns: int = 1
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    image: Image.Image | None = None
    mask: Image.Image | None = None

    def batches(self) -> list["Record"]:
        """A record for each batch."""
        firsts = range(0, len(self.prompts), self.batch_size)
        rows = [slice(first, first + self.batch_size) for first in firsts]
        return [replace(self, prompts=self.prompts[r], seeds=self.seeds[r]) for r in rows]

    def draw(self, pipeline: Pipeline, on_step: OnStep = ignore_step) -> Tensor:
        """The pictures of one batch, uint8 (N, C, H, W)."""
        options: Options = {
            "sampling": self.sampling,
            "seeds": self.seeds,
            "negative_prompt": self.negative_prompt,
            "batch_size": self.batch_size,
            "on_step": on_step,
        }
        if self.image is None:
            size: dict[str, Any] = {"height": self.height, "width": self.width}
            return pipeline.text_to_image(self.prompts, output="tensor", **size, **options)
        assert self.strength is not None
        if self.mask is None:
            return pipeline.image_to_image(self.prompts, self.image, strength=self.strength, output="tensor", **options)
        return pipeline.inpaint(self.prompts, self.image, self.mask, strength=self.strength, output="tensor", **options)

    def again(self, pipeline: Pipeline, on_step: OnStep = ignore_step) -> Tensor:
        """The recorded picture, uint8 (C, H, W), drawn with its whole batch."""
        pictures = torch.cat([batch.draw(pipeline, on_step) for batch in self.batches()])
        return image_grid(pictures, self.columns) if self.index is None else pictures[self.index]

    def save(self, path: Path, picture: Tensor) -> None:
        """Write `picture`, uint8 (C, H, W), as a PNG with this record.

        Raises:
            DarkroomError: the file cannot be written.
        """
        info = PngInfo()
        for key, value in self._facts().items():
            info.add_text(key, value)
        values = {f: v for f, v in vars(self).items() if f not in INPUTS}
        values |= {"sampling": asdict(self.sampling), "format": FORMAT}
        info.add_text(KEY, json.dumps(values, sort_keys=True))
        for name in INPUTS:
            if (given := getattr(self, name)) is not None:
                info.add_text(f"{KEY}:{name}", _packed(given))
        try:
            with whole(path) as beside:
                to_pil(picture).save(beside, format="PNG", pnginfo=info)
        except OSError as error:
            raise DarkroomError(f"{path}: cannot be written ({error.strerror}); give another --out") from None

    @classmethod
    def read(cls, path: Path) -> "Record":
        """The record in a PNG.

        Raises:
            DarkroomError: there is no such file, it is no PNG of this program, or one of another format.
        """
        texts = open_picture(path).info
        if KEY not in texts:
            raise DarkroomError(f"{path}: does not say how it was made; give a PNG as darkroom wrote it")
        try:
            values = json.loads(texts[KEY])
            if values.pop("format") != FORMAT:
                raise DarkroomError(f"{path}: its record has another format than {FORMAT}; install another version")
            values["sampling"] = Sampling(**values["sampling"])
            inputs: dict[str, Any] = {
                name: _unpacked(texts[f"{KEY}:{name}"]) for name in INPUTS if f"{KEY}:{name}" in texts
            }
            return cls(**values, **inputs)
        except (KeyError, TypeError, ValueError, AttributeError, UnusablePictureError) as error:
            raise DarkroomError(f"{path}: its record is damaged ({error}); give the file as it was written") from None

    def _facts(self) -> dict[str, str]:
        """The essence, in words for any picture viewer."""
        i = self.index
        facts = {
            "prompt": "\n".join(dict.fromkeys(self.prompts)) if i is None else self.prompts[i],
            "seed": f"{self.seeds[0]} to {self.seeds[-1]}" if i is None else self.seeds[i],
            "steps": self.sampling.num_inference_steps,
            "guidance_scale": self.sampling.guidance_scale,
            "sampler": self.sampling.sampler,
            "model": self.model,
            "Software": f"Darkroom {__version__}",
        }
        if self.negative_prompt is not None:
            facts["negative_prompt"] = self.negative_prompt
        return {key: str(value) for key, value in facts.items()}


def profile(pipeline: Pipeline) -> dict[str, str]:
    """What may change the last bits of a picture: the execution profile, and this program's version."""
    return {**execution_profile(pipeline.device), "version.darkroom": __version__}


def differences(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What differs between two profiles, a line each."""
    keys = sorted(recorded.keys() | found.keys())
    pairs = [(key, recorded.get(key, "unknown"), found.get(key, "unknown")) for key in keys]
    return [f"{key}: {before} -> {now}" for key, before, now in pairs if before != now]


def open_picture(path: Path) -> Image.Image:
    """A picture file, decoded.

    Raises:
        DarkroomError: there is no such file, or it is no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DarkroomError(f"{path}: cannot be read ({error.strerror}); name a picture") from None
    try:
        return decode(data)
    except UnusablePictureError as error:
        raise DarkroomError(f"{path}: {error}; name another picture") from None


def _packed(picture: Image.Image) -> str:
    data = io.BytesIO()
    bare = picture.copy()
    bare.info = {}
    bare.save(data, format="PNG")
    return base64.b64encode(data.getvalue()).decode()


def _unpacked(text: str) -> Image.Image:
    try:
        return decode(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError(error) from None
