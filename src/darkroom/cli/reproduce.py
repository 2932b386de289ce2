"""`darkroom reproduce`."""

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darkroom.cli.completion import stages
from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable_text

if TYPE_CHECKING:
    from darkroom.runner.reproduce import Files, Reproduction

MOST_SHOWN = 8  # of the files of a folder


def reproduce(
    stage: Annotated[str, typer.Argument(help="As dvc.yaml names it.", show_default=False, autocompletion=stages)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON; all else goes to stderr.")] = False,
) -> None:
    """Run a stage of the last commit again and check whether its outputs are those of dvc.lock, to the byte.

    Works on a fresh clone: what the stage depends on, and nothing else, comes from DVC's cache or remote. The stage
    runs in a copy of the commit in .reproduce; dvc.lock, outputs and reports of the project stay as they are. Exit
    status 0: identical. 1: different (the new outputs are kept, and named), or failed.

    \b
    darkroom reproduce train_vae
    darkroom reproduce evaluate --json
    """
    from darkroom.runner.reproduce import reproduce as made_again

    try:
        done = made_again(stage)
    except DarkroomError as error:
        if not as_json:
            raise
        print(json.dumps({"stage": stage, "result": "failed", "error": str(error)}, indent=2))
        raise typer.Exit(1) from None
    differing = _differing(done)
    print(json.dumps(_values(done, differing), indent=2) if as_json else _text(done, differing))
    if not done.identical:
        raise typer.Exit(1)


def _differing(done: "Reproduction") -> list[str] | None:
    """How the profile of this run differs from the recorded one; None where one of them is unknown."""
    if done.recorded is None or done.here is None:
        return None
    from darkroom.inference.record_text import differences  # imports nothing that draws

    return differences(done.recorded, done.here)


def _values(done: "Reproduction", differing: list[str] | None) -> dict[str, Any]:
    return {
        "stage": done.stage,
        "result": "identical" if done.identical else "different",
        "commit": done.commit,
        "seconds": round(done.seconds, 1),
        "outputs": [{**vars(one), "files": one.files and vars(one.files), "same": one.same} for one in done.outputs],
        "profile": {"recorded": done.recorded, "here": done.here, "differences": differing},
        "folder": done.folder and done.folder.as_posix(),
    }


def _text(done: "Reproduction", differing: list[str] | None) -> str:
    others = [one for one in done.outputs if not one.same]
    count, commit = len(done.outputs), done.commit[:10]
    if not others:
        lines = [f"{done.stage}: identical: {count} of {count} outputs are those of commit {commit}, to the byte"]
    else:
        lines = [f"{done.stage}: different: {len(others)} of {count} outputs are not those of commit {commit}"]
    for one in others:
        lines.append(f"  {one.path}: {one.recorded} in dvc.lock, {one.found} now")
        lines += _listed(one.files) if one.files else []
    lines.append(f"  execution profile: {_compared(done, differing)}")
    if done.folder is not None:
        folder = shlex.quote(done.folder.as_posix())
        lines += [
            f"  The new outputs are in {folder}; the project is unchanged.",
            f"  To discard them: rm -r .reproduce/{done.stage}",
            f"  To keep them: copy them from there over the project's own, then dvc commit {done.stage}",
        ]
    return "\n".join(map(printable_text, lines))


def _compared(done: "Reproduction", differing: list[str] | None) -> str:
    if done.recorded is None:
        return "no run that wrote the outputs of dvc.lock is known here, so there is no profile to compare with"
    if differing is None:
        return "the stage did not record its profile in that commit, so there is none to compare"
    if not differing:
        return "as recorded"
    return f"another than recorded{'' if done.identical else ', which may explain it'}: {'; '.join(differing)}"


def _listed(files: "Files") -> list[str]:
    lines = []
    for what, names in vars(files).items():
        if names:
            more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
            lines.append(f"    {what}: {', '.join(names[:MOST_SHOWN])}{more}")
    return lines
