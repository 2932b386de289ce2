"""`darkroom audit`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from darkroom.audit.findings import BREAKS, WARNINGS
from darkroom.cli.completion import stages
from darkroom.cli.options import checked_path

HELP = f"""\
Check that dvc.lock, the disk, DVC's cache and MLflow's runs agree, and print the lineage.

The lineage of everything, of a stage, of a file that a stage writes, or of a picture that darkroom drew (by its
metadata), back to the source. Each finding names what is wrong, where, and the command that fixes it. The exit
status is 1 where the chain is broken:

\b
{chr(10).join(f"  {kind:25}{meaning}" for kind, meaning in BREAKS.items())}

and 0 with these:

\b
{chr(10).join(f"  {kind:25}{meaning}" for kind, meaning in WARNINGS.items())}

--repair restores in MLflow what was recorded of runs and models, undeletes runs, records runs for outputs that match
dvc.lock but have none, notes restored outputs, closes runs whose process is gone, and finds the files of runs again
after the project was moved. It changes nothing but MLflow's store and its records. docs/audit.md says more.

\b
darkroom audit
darkroom audit train_unet
darkroom audit samples/a-green-ring.png
darkroom audit --all-runs
darkroom audit --json > audit.json
darkroom audit --html audit.html
"""


def audit(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A stage, a file or a picture. [default: all stages]", show_default=False, autocompletion=stages
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Also write it as one HTML page, the lineage drawn.", show_default=False),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Fix what MLflow's store should say.")] = False,
    all_runs: Annotated[
        bool, typer.Option("--all-runs", help="Compare the runs and models that dvc.lock does not name, too.")
    ] = False,
) -> None:
    from darkroom.audit import report
    from darkroom.audit.auditor import Auditor

    if html is not None:
        checked_path("--html", html, ".html")
    auditor = Auditor(target, all_runs)
    repaired = auditor.repair() if repair else []
    found = auditor.audit()
    found.repaired = repaired
    print(json.dumps(report.as_json(found), indent=2) if as_json else report.text(found))
    if html is not None:
        from darkroom.audit.page import write_page

        write_page(found, html)
        print(f"page: {html}", file=sys.stderr)
    if not found.intact:
        raise typer.Exit(1)
