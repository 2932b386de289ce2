"""The options that all drawing commands share, written once, and the check of where commands are to write."""

import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from darkroom.cli.names import check_names
from darkroom.config.choices import SamplerName, Spacing, Variance
from darkroom.config.paths import PIPELINE
from darkroom.core.errors import DarkroomError
from darkroom.inference.defaults import EXAMPLE

MAX_PICTURES = 256  # of one prompt
MAX_SCALE = 64
MAX_SEED = 2**62  # far below the largest that a picture's record may name, for the seeds that follow


@dataclass(frozen=True)
class Options:
    """What every drawing command takes; None is as the pipeline does it."""

    prompts: Annotated[
        Path | None, typer.Option(help="File of prompts, one a line, in place of PROMPT.", show_default=False)
    ] = None
    n: Annotated[int, typer.Option("-n", min=1, max=MAX_PICTURES, help="How many pictures of each prompt.")] = 1
    negative_prompt: Annotated[
        str | None, typer.Option(help="What the pictures are to be unlike.", show_default=False)
    ] = None
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps. [default: the pipeline's]")] = None
    guidance_scale: Annotated[
        float | None,
        typer.Option(min=0, help="How hard the prompt is pressed; 1 is no guidance. [default: the pipeline's]"),
    ] = None
    guidance_rescale: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Against the glare of much guidance: 0 is off, 0.7 is usual. [default: the pipeline's]"
        ),
    ] = None
    sampler: Annotated[SamplerName | None, typer.Option(help="[default: the pipeline's]")] = None
    spacing: Annotated[Spacing | None, typer.Option(help="Where the steps lie. [default: the pipeline's]")] = None
    karras: Annotated[
        bool | None, typer.Option("--karras/--no-karras", help="Smaller steps at the end. [default: the pipeline's]")
    ] = None
    eta: Annotated[float | None, typer.Option(min=0, max=1, help="Noise that ddim adds. [default: the pipeline's]")] = (
        None
    )
    variance: Annotated[
        Variance | None, typer.Option(help="Spread of the noise that ddpm adds. [default: the pipeline's]")
    ] = None
    snr: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Size of predictor_corrector's corrections. [default: the pipeline's]"),
    ] = None
    tolerance: Annotated[
        float | None, typer.Option(min=0, max=1, help="How exact ode is to be. [default: the pipeline's]")
    ] = None
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Of the first picture; the next ones have seed + 1, + 2, …")
    ] = 0
    out: Annotated[Path | None, typer.Option(help="PNG file to write. [default: samples/, named after the prompt]")] = (
        None
    )
    grid: Annotated[bool, typer.Option(help="Of several pictures, also write one that shows them all, to --out.")] = (
        True
    )
    scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_SCALE,
            help="Pixels of a file for each pixel drawn. [default: 1; in grids, enough to see small pictures]",
        ),
    ] = None
    gif: Annotated[
        Path | None, typer.Option(help="GIF file to write: how the first few pictures came about.", show_default=False)
    ] = None
    pipeline: Annotated[Path, typer.Option(help="Folder of the trained pipeline.")] = PIPELINE


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with a parameter `options: Options`, as one that takes them all one by one."""
    names = [one.name for one in fields(Options)]

    def spread(**values: Any) -> None:
        command(options=Options(**{name: values.pop(name) for name in names}), **values)

    own = [one for one in inspect.signature(command).parameters.values() if one.name != "options"]
    hints = {**get_type_hints(command, include_extras=True), **get_type_hints(Options, include_extras=True)}
    shared = [inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default) for f in fields(Options)]
    every = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + shared
    spread.__name__, spread.__doc__ = command.__name__, taught(command).__doc__
    spread.__annotations__ = {one.name: hints[one.name] for one in every}
    spread.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [one.replace(annotation=hints[one.name]) for one in every]
    )
    return spread


def taught(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose help shows the one example prompt in the place of EXAMPLE."""
    command.__doc__ = (command.__doc__ or "").replace("EXAMPLE", EXAMPLE)
    return command


def place(option: str, path: Path, suffix: str, made: bool = False) -> Path:
    """The path itself, refused before anything is drawn where no such file could be written.

    Args:
        made: whether its folder is made where it is missing, as no mistyped one should be.
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
