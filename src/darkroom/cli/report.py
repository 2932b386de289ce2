"""`darkroom report`."""

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.options import checked_path


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Ids of runs, their first digits, or stages. [default: the model that dvc.lock has]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write. [default: in .darkroom/reports]", show_default=False)
    ] = None,
) -> None:
    """Write a report as one HTML file that loads nothing, and print its address.

    Without RUN: of the model that this project has, with every stage behind it. Also written are the reports of the
    stages, .darkroom/reports/STAGE.html, which each stage writes itself at its end.

    With one RUN, an id that MLflow shows or its first digits, of that run, be it one that failed; a stage stands for
    its newest run. With several, they are compared: parameters that differ, curves on one chart, figures with their
    intervals, sheets of the same prompts.

    \b
    darkroom report
    darkroom report train_unet
    darkroom report 3f2a91c0 8d07be55 --out comparison.html
    """
    from darkroom.core.errors import DarkroomError
    from darkroom.reporting.compare import comparison, find_runs
    from darkroom.reporting.facts import FOLDER
    from darkroom.reporting.gather import of_recorded
    from darkroom.reporting.pages import render, stage_page
    from darkroom.reporting.write import address, report_project, write_page
    from darkroom.tracking.address import is_on, project_root
    from darkroom.tracking.query import RunQuery, store_exists

    if out is not None:
        checked_path("--out", out, ".html")
    if not runs:
        page = report_project()
        if out is not None:
            write_page(out, page.read_text(encoding="utf-8"))
        print(address(out or page))
        return
    if not is_on() or not store_exists():
        raise DarkroomError(
            "no store of runs to ask; leave RUN out for the report of this project, or set MLFLOW_TRACKING_URI"
        )
    query = RunQuery()
    found = find_runs(runs, query)
    if len(found) == 1:
        text, name = render(stage_page(*of_recorded(found[0], query))), f"run-{found[0].id}.html"
    else:
        text, name = render(comparison(found, query)), "comparison.html"
    page = out or project_root() / FOLDER / name
    page.parent.mkdir(parents=True, exist_ok=True)
    write_page(page, text)
    print(address(page))
