"""What every way of drawing can be asked for, and a request that has been checked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from PIL import Image
from torch import Tensor

from darkroom.config.sampling import SamplerOptions, Sampling
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import AT_ONCE, PIXELS, POSITIONS, check_sampling, counted
from darkroom.core.tensors import to_pil
from darkroom.diffusion.generate import ignore_step
from darkroom.diffusion.samplers._base import OnStep
from darkroom.inference.defaults import BATCH_SIZE

Output = Literal["pil", "tensor"]


@dataclass
class Tally:
    """How often the network was asked, guided or not, for whole batches."""

    evaluations: int = 0

    def count(self) -> None:
        """One more, about to be asked; what this raises ends the drawing."""
        self.evaluations += 1


class Options(TypedDict, total=False):
    """How to draw; what is left out, or None, is as the pipeline does it.

    negative_prompt: what guidance leads away from, one for all pictures or one for each, in place of the model's null
        condition; the prompt itself cancels the guidance.
    num_inference_steps, guidance_scale, guidance_rescale, sampler: see `Sampling`; guidance 1 is the conditional model
        itself, at half the work; a sampler by its name, or with its options as {"kind": "ddim", "eta": 0.5}.
    sampling: everything `Sampling` says at once; the four above still go before it.
    seeds: one per picture, by default 0, 1, 2, …; a picture depends on its own prompt and seed alone. A single prompt
        is drawn once for each.
    on_step: called after each step of each batch with (step, latents, the x0 they were based on), scaled.
    batch_size: pictures drawn at once.
    tally: counts the evaluations of the network.
    """

    negative_prompt: str | Sequence[str] | None
    num_inference_steps: int | None
    guidance_scale: float | None
    guidance_rescale: float | None
    sampler: str | SamplerOptions | Mapping[str, Any] | None
    sampling: Sampling | None
    seeds: Sequence[int] | None
    on_step: OnStep
    batch_size: int
    tally: Tally


@dataclass(frozen=True)
class Request:
    """A checked request: as many prompts, seeds and, if there are any, negatives as pictures."""

    prompts: list[str]
    negatives: list[str] | None
    seeds: list[int]
    sampling: Sampling
    on_step: OnStep
    batch_size: int
    tally: Tally

    @property
    def batches(self) -> Iterator[slice]:
        """The pictures drawn together."""
        for first in range(0, len(self.prompts), self.batch_size):
            yield slice(first, first + self.batch_size)


def request(prompt: str | Sequence[str], options: Options, default: Sampling, pictures: int = 1) -> Request:
    """Check a request and fill it in.

    Args:
        pictures: how many a single prompt without seeds is drawn.

    Raises:
        DarkroomError: no prompt, numbers of prompts, seeds or negative prompts that do not match, or what `Sampling`
            refuses.
    """
    if unknown := options.keys() - Options.__annotations__.keys():
        raise TypeError(
            f"unknown options: {', '.join(sorted(unknown))}; there are {', '.join(Options.__annotations__)}"
        )
    asked = options.get("seeds")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise DarkroomError("prompt: none given; give at least one text")
    if isinstance(prompt, str):
        prompts = prompts * (pictures if asked is None else len(asked))
    seeds = list(range(len(prompts))) if asked is None else list(asked)
    if not seeds:
        raise DarkroomError("seeds: none given; give one for each picture")
    if len(seeds) != len(prompts):
        raise DarkroomError(f"seeds: {len(seeds)} given for {len(prompts)} prompts; give one for each")
    negative = options.get("negative_prompt")
    negatives = None if negative is None else list(negative)
    if isinstance(negative, str):
        negatives = [negative] * len(prompts)
    if negatives is not None and len(negatives) != len(prompts):
        raise DarkroomError(
            f"negative_prompt: {len(negatives)} given for {len(prompts)} pictures; give one for all or one for each"
        )
    batch_size = options.get("batch_size", BATCH_SIZE)
    if batch_size < 1:
        raise DarkroomError(f"batch_size = {batch_size}: give 1 or more")
    on_step, tally = options.get("on_step", ignore_step), options.get("tally", Tally())
    return Request(prompts, negatives, seeds, resolved(options, default), on_step, batch_size, tally)


def check_size(size: Sequence[int], fixed_side: int | None, downscale: int) -> None:
    """Refuse pictures of a size (height, width) in pixels that cannot be drawn.

    Args:
        fixed_side: the one side that the network's latents have, or None. downscale: pixels of a side of a latent.

    Raises:
        DarkroomError: no pixel, more than there is memory and time for, or another size than the network's only one.
    """
    height, width = size
    for key, side in zip(("height", "width"), size, strict=True):
        if side < 1:
            raise DarkroomError(f"{key} = {side}: give 1 or more pixels")
        if fixed_side is not None and side != fixed_side * downscale:
            only = fixed_side * downscale
            raise DarkroomError(f"{key} = {side}: this model's network takes {only} x {only} pixels alone; give those")
    what = f"height = {counted(height)}, width = {counted(width)}"
    PIXELS.check(f"{what}: height x width", height * width, "draw a smaller picture")
    here = f"{what}: positions of {downscale} x {downscale} pixels"
    POSITIONS.check(here, positions(size, downscale), "draw a smaller picture")


def together(size: Sequence[int], downscale: int) -> int:
    """How many pictures of a size (height, width) in pixels are drawn together at most: fewer of large ones."""
    return max(1, AT_ONCE.most // positions(size, downscale))


def positions(size: Sequence[int], downscale: int) -> int:
    """Of the latents of a picture of a size (height, width) in pixels."""
    height, width = size
    return -(-height // downscale) * -(-width // downscale)


def resolved(options: Options, default: Sampling) -> Sampling:
    """The way of sampling that options ask for."""
    values: dict[str, Any] = {
        "num_inference_steps": options.get("num_inference_steps"),
        "guidance_scale": options.get("guidance_scale"),
        "guidance_rescale": options.get("guidance_rescale"),
        "sampler": options.get("sampler"),
    }
    changes = {key: value for key, value in values.items() if value is not None}
    check_sampling(changes, "", "take fewer")
    return (options.get("sampling") or default).changed(**changes)


def answer(output: Output, pictures: Tensor) -> list[Image.Image] | Tensor:
    """Pictures uint8 (N, C, H, W) in the form asked for."""
    return pictures if output == "tensor" else [to_pil(picture) for picture in pictures]
