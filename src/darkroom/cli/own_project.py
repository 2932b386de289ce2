"""Commands about a project of one's own around the installed package, and about stages that are out of date."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from darkroom.core.text import printable_text
from darkroom.inference.defaults import EXAMPLE

WIDTH = 20  # of a stage's name


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or an empty one.", show_default=False)],
    recipe: Annotated[
        str | None,
        typer.Option(help="As `darkroom recipe list` spells it. [default: scenes; of pictures, captioned]"),
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="A folder of your own, each picture with a caption.", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=1, max=1_000_000, help="For all stages, with --pictures, on two cores. [default: 20]"),
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option(help="Where DVC pushes data and models: a folder or s3://… [default: asked for in a terminal]"),
    ] = None,
) -> None:
    """Make a project around the installed Darkroom: parameters, stages, git and DVC, with a first commit.

    It holds no code: its stages run the installed package, and depend on the hashes of the modules that they run, so
    that an upgrade makes those out of date that it changes. docs/own-project.md says more.

    \b
    darkroom new scenes
    darkroom new birds --pictures ~/pictures/birds --minutes 60
    darkroom new digits --recipe mnist --remote s3://bucket/digits
    """
    from darkroom.runner.new_project import Wish
    from darkroom.runner.new_project import new as make

    if remote is None and sys.stdin.isatty() and sys.stdout.isatty():
        remote = typer.prompt("Where DVC pushes data and models (a folder, s3://…; nothing: nowhere yet)", default="")
    for line in make(folder, Wish(recipe, remote or "", pictures, minutes, EXAMPLE)):
        print(printable_text(line))
    print(f"next: cd {folder}, then dvc repro; README.md there has the other commands")


def sync() -> None:
    """Write to code/STAGE.json which code of the installed package each stage runs, where that has changed.

    For projects that `darkroom new` made; `dvc repro` does it first. What it names is out of date.
    """
    from darkroom.project.code_files import sync as write

    changes = write()
    for change in changes:
        print(printable_text(f"{change.stage}: {change.why}"))
    if not changes:
        print("code: every stage's as it was")


def status() -> None:
    """Say which stages are out of date, and why: what `dvc repro` would run. `darkroom audit` looks deeper."""
    from darkroom.runner.status import status as look

    found = look()
    for stage in found:
        if stage.reasons:
            said = f"out of date: {'; '.join(stage.reasons)}"
        elif stage.after:
            said = f"runs again if {', '.join(stage.after)} writes something else"
        else:
            said = "up to date"
        if stage.kept is not None:
            said += f"; not rerun: kept since {stage.kept.since} under changed code ({stage.kept.why})"
        print(printable_text(f"{stage.stage:{WIDTH}}{said}"))
    if stale := [stage.stage for stage in found if stage.reasons]:
        kept = [stage.stage for stage in found if stage.code_alone]
        print(f"\ndvc repro runs {', '.join(stale)}, and what follows from that.")
        if kept:
            print(f"To keep what was made before its code changed: darkroom keep {' '.join(kept)}")


def keep(
    stages: Annotated[list[str], typer.Argument(help="As dvc.yaml names them.", show_default=False)],
) -> None:
    """Keep the outputs of stages whose code has changed, without running them again.

    dvc.lock then names the present code, and a note in .darkroom, to be committed, which code it really was: status and
    audit name such a stage until it runs again. Refused where data, parameters or outputs differ too.

    \b
    darkroom keep train_vae
    """
    from darkroom.runner.keep import keep as take_over

    for stage in stages:
        note = take_over(stage)
        print(printable_text(f"{stage}: kept, though its code changed ({note.why}); commit dvc.lock and .darkroom"))
