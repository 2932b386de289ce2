"""The options that all drawing commands share, and the check of the paths they write."""

import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from darkroom.cli.names import check_names
from darkroom.config.paths import PIPELINE
from darkroom.config.sampling import Spacing
from darkroom.core.errors import DarkroomError
from darkroom.inference.defaults import EXAMPLE

MAX_PICTURES = 256  # of one prompt
MAX_SCALE = 64
MAX_SEED = 2**62  # far below the largest that a picture's record may name, for the seeds that follow


@dataclass(frozen=True)
class SamplingOptions:
    """The options of a command that change how pictures are sampled; None: the pipeline's own."""

    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps. [default: the pipeline's]")] = None
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            min=0, help="How strongly the prompt guides the picture; 1: no guidance. [default: the pipeline's]"
        ),
    ] = None
    guidance_rescale: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Reduces the overexposure of strong guidance: 0 is off, 0.7 is usual. [default: the pipeline's]",
        ),
    ] = None
    sampler: Annotated[
        str | None,
        typer.Option(
            help="By name, such as dpmpp_2m, or with its own options: ddim,eta=0.5. [default: the pipeline's]",
            metavar="NAME[,KEY=VALUE]",
        ),
    ] = None
    spacing: Annotated[Spacing | None, typer.Option(help="Where the steps lie. [default: the pipeline's]")] = None
    karras: Annotated[
        bool | None, typer.Option("--karras/--no-karras", help="Smaller steps at the end. [default: the pipeline's]")
    ] = None

    @property
    def changes(self) -> dict[str, Any]:
        """What they change of the pipeline's `Sampling`."""
        changes: dict[str, Any] = {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "guidance_rescale": self.guidance_rescale,
            "sampler": self.sampler,
            "spacing": self.spacing,
            "karras": self.karras,
        }
        return {key: value for key, value in changes.items() if value is not None}


@dataclass(frozen=True)
class Options(SamplingOptions):
    """What every drawing command takes; None: the pipeline's own."""

    prompts: Annotated[
        Path | None, typer.Option(help="File of prompts, one a line, in place of PROMPT.", show_default=False)
    ] = None
    n: Annotated[int, typer.Option("-n", min=1, max=MAX_PICTURES, help="How many pictures of each prompt.")] = 1
    negative_prompt: Annotated[
        str | None, typer.Option(help="What the pictures should not show.", show_default=False)
    ] = None
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Of the first picture; the next have seed + 1, seed + 2, …")
    ] = 0
    out: Annotated[Path | None, typer.Option(help="PNG file to write. [default: samples/, named after the prompt]")] = (
        None
    )
    grid: Annotated[bool, typer.Option(help="Of several pictures, also write a grid of all, to --out.")] = True
    scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_SCALE,
            help="Pixels of a side in the file for each pixel drawn. [default: 1; more in grids of small pictures]",
        ),
    ] = None
    gif: Annotated[
        Path | None, typer.Option(help="GIF file to write: the first few pictures, step by step.", show_default=False)
    ] = None
    pipeline: Annotated[Path, typer.Option(help="Folder of the trained pipeline.")] = PIPELINE
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="Adapter to draw with, by its file or folder, and how strongly it acts (1); may be given again.",
            metavar="FILE[:STRENGTH]",
            show_default=False,
        ),
    ] = None


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with a parameter `options`, of a dataclass of options, as one that has each of them as a command-line
    option; those of the class itself stand before those that it inherits."""
    hints = get_type_hints(command, include_extras=True)
    kind = hints["options"]
    options = sorted(fields(kind), key=lambda one: one.name not in vars(kind)["__annotations__"])
    names = [one.name for one in options]

    def spread(**values: Any) -> None:
        command(options=kind(**{name: values.pop(name) for name in names}), **values)

    particular = [one for one in inspect.signature(command).parameters.values() if one.name != "options"]
    hints |= get_type_hints(kind, include_extras=True)
    shared = [inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default) for f in options]
    every = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in particular] + shared
    spread.__name__, spread.__doc__ = command.__name__, taught(command).__doc__
    spread.__annotations__ = {one.name: hints[one.name] for one in every}
    spread.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [one.replace(annotation=hints[one.name]) for one in every]
    )
    return spread


def taught(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the example prompt in its help in place of EXAMPLE."""
    command.__doc__ = (command.__doc__ or "").replace("EXAMPLE", EXAMPLE)
    return command


def checked_path(option: str, path: Path, suffix: str, made: bool = False) -> Path:
    """The path itself, refused before anything is drawn if it could not be written.

    Args:
        made: whether its folder is made if it is missing, which could be a typing error.
    """
    if path.suffix.lower() != suffix:
        raise DarkroomError(f"{option} = {path}: give a name that ends in {suffix}")
    check_names(option, [path])
    if not (made or path.parent.exists()):
        raise DarkroomError(
            f"{option} = {path}: there is no folder {path.parent}; make it (mkdir -p {shlex.quote(str(path.parent))}), "
            "or give another place"
        )
    return path
