"""`darkroom regenerate`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.draw import load_pipeline
from darkroom.cli.options import checked_path
from darkroom.config.paths import PIPELINE
from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable_text


def regenerate(
    picture: Annotated[Path, typer.Argument(help="PNG written by generate, img2img or inpaint.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="PNG file to write. [default: beside PICTURE, -again added to its name]")
    ] = None,
    pipeline: Annotated[Path, typer.Option(help="Folder of the pipeline that drew it.")] = PIPELINE,
    lora: Annotated[
        list[Path] | None,
        typer.Option(help="Adapter that it was drawn with, where it lies elsewhere now; may be given again."),
    ] = None,
) -> None:
    """Make a picture again from its metadata, together with its batch.

    With the same device, threads, instruction set and library versions the file is the same to the byte. Otherwise
    the command prints which of these differ, and by how much the pictures do.

    \b
    darkroom regenerate samples/a-small-red-circle.png
    """
    from darkroom.core.progress import Progress
    from darkroom.diffusion.generate import sampling_levels
    from darkroom.inference.again import adapters_of, compared
    from darkroom.inference.record import Record, profile
    from darkroom.inference.record_text import differences

    record = Record.read(picture)
    out = checked_path("--out", out or picture.with_stem(f"{picture.stem}-again"), ".png")
    model = load_pipeline(pipeline, record.precision, adapters_of(picture, record, lora or []))
    if model.model_hash != record.model:
        raise DarkroomError(
            f"{picture}: was drawn by the pipeline {record.model}, but {pipeline} is {model.model_hash}; "
            "name the folder that drew it with --pipeline"
        )
    now = profile(model)
    for line in differences(record.profile, now):
        print(f"darkroom: another execution profile: {printable_text(line)}", file=sys.stderr)
    try:
        record.check_work(model)
        sampling_levels(record.sampling, model.schedule, model.info.prediction_type)
    except DarkroomError as error:
        raise DarkroomError(f"{picture}: {error}") from None
    with Progress(record.steps(model), "regenerate") as bar:
        again = record.redraw(model, lambda *_: bar.update())
    replace(record, profile=now).save(out, again)
    print(f"{printable_text(out)}: {printable_text(compared(picture, out, again))}")
