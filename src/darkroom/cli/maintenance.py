"""`darkroom doctor` and `darkroom gc`."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from darkroom.core.text import printable_text

LISTED = 8  # of one kind, before "and N more"


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Say what would fail in this project on this machine, and what fixes it.

    Python and packages, devices, memory, disk, git, DVC with its cache, locks and remotes, MLflow's store, params.yaml,
    the data, checkpoints: a line each (ok, warning or problem). The exit status is 1 where there is a problem. Nothing
    is changed.

    \b
    darkroom doctor
    darkroom doctor --json
    """
    from darkroom.maintenance.doctor.table import examine

    found = examine()
    problems = sum(one.state == "problem" for one in found)
    if as_json:
        print(json.dumps({"sound": not problems, "checks": [asdict(one) for one in found]}, indent=2))
    else:
        width = max(len(one.check) for one in found)
        for one in found:
            print(printable_text(f"{one.state:8} {one.check:{width}}  {one.found}"))
            if one.fix:
                print(printable_text(f"{'':8} {'':{width}}  fix: {one.fix}"))
        warnings = sum(one.state == "warning" for one in found)
        print(f"\n{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}")
    if problems:
        raise typer.Exit(1)


def _counted(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'' if n == 1 else 's'}"


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it without asking.")] = False,
    experiments: Annotated[bool, typer.Option("--experiments", help="Keep what experiments of DVC refer to.")] = False,
) -> None:
    """Show what takes room and nothing refers to any more, and remove it.

    Kept is what the working tree, HEAD, any branch, any tag or a registered version refers to: of those, every output
    comes back with dvc checkout. What goes: objects in DVC's cache, checkpoints of trainings that would not begin so
    now, copies of weights in MLflow (the runs stay, with parameters, curves and pictures), and what was left by
    processes that are gone. Of experiments (dvc exp run) nothing is kept unless a branch names them (dvc exp branch) or
    --experiments is given. A remote is never touched.

    On a terminal it asks first; elsewhere it removes nothing without --yes.

    \b
    darkroom gc
    darkroom gc --yes
    """
    from darkroom.core.progress import readable_size
    from darkroom.maintenance.garbage.plan import carry_out, plan

    found = plan(experiments)
    for kind in dict.fromkeys(item.kind for item in found.items):
        items = sorted((item for item in found.items if item.kind == kind), key=lambda item: -item.bytes)
        print(f"{readable_size(sum(item.bytes for item in items)):>9}  {kind}")
        for item in items[:LISTED]:
            print(printable_text(f"{readable_size(item.bytes):>20}  {item.what}"))
        if len(items) > LISTED:
            print(f"{readable_size(sum(item.bytes for item in items[LISTED:])):>20}  {len(items) - LISTED} more")
    print(f"{readable_size(found.bytes):>9}  in all" if found.items else "Nothing to remove.")
    print(printable_text(f"kept: what {found.kept} refer to"))
    if lost := found.kept.experiments:
        print(printable_text(f"not kept for their own sake: experiments {', '.join(lost)} (--experiments keeps them)"))
    for remark in found.remarks:
        print(printable_text(remark))
    if not found.items:
        return
    if not yes and not sys.stdin.isatty():
        print("nothing was removed; darkroom gc --yes removes it")
        return
    if not yes and not typer.confirm("Remove it?"):
        return
    freed, remarks = carry_out(found, experiments)
    print(f"freed {readable_size(freed)}")
    for remark in remarks:
        print(printable_text(remark))
