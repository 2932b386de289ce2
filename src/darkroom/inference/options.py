"""What every call of a pipeline can be asked for, and a request that has been checked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from darkroom.config.sampling import SamplerOptions, Sampling
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import AT_ONCE, PIXELS, POSITIONS, check_sampling, counted
from darkroom.core.text import plural
from darkroom.diffusion.generate import ignore_step
from darkroom.diffusion.samplers._base import OnStep
from darkroom.inference.defaults import BATCH_SIZE

OnEvaluation = Callable[[], None]


class Options(TypedDict, total=False):
    """How to draw. What is left out, or None, is as the pipeline's own `sampling` has it.

    negative_prompt: what guidance leads away from, one for all pictures or one for each, in place of the model's null
        condition.
    num_inference_steps, guidance_scale, guidance_rescale, sampler: see `Sampling`; guidance 1 is the conditional model
        itself, at half the work; a sampler by its name, or with its options as {"kind": "ddim", "eta": 0.5}.
    sampling: everything `Sampling` says at once; the four above override it.
    seeds: one per picture, by default 0, 1, 2, …; a picture depends on its own prompt and seed alone. A single prompt
        is drawn once for each.
    batch_size: pictures drawn together.
    on_step: called after each step of each batch with (step, latents, the x0 they were based on), scaled.
    on_evaluation: called before each evaluation of the network; what it raises ends the drawing.
    """

    negative_prompt: str | Sequence[str] | None
    num_inference_steps: int | None
    guidance_scale: float | None
    guidance_rescale: float | None
    sampler: str | SamplerOptions | Mapping[str, Any] | None
    sampling: Sampling | None
    seeds: Sequence[int] | None
    batch_size: int
    on_step: OnStep
    on_evaluation: OnEvaluation


@dataclass(frozen=True)
class Request:
    """A checked request: as many prompts, seeds and, if there are any, negatives as pictures."""

    prompts: list[str]
    negatives: list[str] | None
    seeds: list[int]
    sampling: Sampling
    batch_size: int
    on_step: OnStep
    on_evaluation: OnEvaluation

    @property
    def batches(self) -> Iterator[slice]:
        """The pictures that are drawn together."""
        for first in range(0, len(self.prompts), self.batch_size):
            yield slice(first, first + self.batch_size)


def request(prompt: str | Sequence[str], options: Options, default: Sampling, pictures: int = 1) -> Request:
    """Check a request and fill it in.

    Args:
        pictures: how many a single prompt without seeds gives.

    Raises:
        DarkroomError: no prompt, numbers of prompts, seeds or negative prompts that do not match, or what `Sampling`
            refuses.
    """
    if unknown := options.keys() - Options.__annotations__.keys():
        raise TypeError(
            f"unknown options: {', '.join(sorted(unknown))}; there are {', '.join(Options.__annotations__)}"
        )
    sampling, seeds = chosen_sampling(options, default), options.get("seeds")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise DarkroomError("prompt: none given; give at least one text")
    if isinstance(prompt, str):
        prompts = prompts * (pictures if seeds is None else len(seeds))
    seeds = list(range(len(prompts)) if seeds is None else seeds)
    if not seeds:
        raise DarkroomError("seeds: none given; give one for each picture")
    if len(seeds) != len(prompts):
        raise DarkroomError(f"seeds: {len(seeds)} given for {plural(len(prompts), 'prompt')}; give one for each")
    negative = options.get("negative_prompt")
    negatives = None if negative is None else list(negative)
    if isinstance(negative, str):
        negatives = [negative] * len(prompts)
    if negatives is not None and len(negatives) != len(prompts):
        raise DarkroomError(
            f"negative_prompt: {len(negatives)} given for {plural(len(prompts), 'picture')}; give one for all or one "
            "for each"
        )
    batch_size = options.get("batch_size", BATCH_SIZE)
    if batch_size < 1:
        raise DarkroomError(f"batch_size = {batch_size}: give 1 or more")
    on_step, on_evaluation = options.get("on_step", ignore_step), options.get("on_evaluation", lambda: None)
    return Request(prompts, negatives, seeds, sampling, batch_size, on_step, on_evaluation)


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


def most_at_once(size: Sequence[int], downscale: int) -> int:
    """How many pictures of a size (height, width) in pixels are drawn together at most: fewer of large ones."""
    return max(1, AT_ONCE.most // positions(size, downscale))


def positions(size: Sequence[int], downscale: int) -> int:
    """The number of latent positions of a picture of a size (height, width) in pixels."""
    height, width = size
    return -(-height // downscale) * -(-width // downscale)


def chosen_sampling(options: Options, default: Sampling) -> Sampling:
    """The sampling that options ask for."""
    keys = ("num_inference_steps", "guidance_scale", "guidance_rescale", "sampler")
    values: dict[str, Any] = {key: value for key in keys if (value := options.get(key)) is not None}
    check_sampling(values, "", "take fewer")
    return (options.get("sampling") or default).changed(**values)
