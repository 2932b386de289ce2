"""Checkpoints that no training here would resume from, and what was left by what is over."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from darkroom.config.paths import ARTIFACTS
from darkroom.core.progress import duration
from darkroom.maintenance.garbage.item import Item
from darkroom.maintenance.sizes import size_of
from darkroom.runner.lock import is_taken
from darkroom.runner.present import present_fingerprint
from darkroom.runner.reproduce import COPIES
from darkroom.runner.resuming import FOLDER
from darkroom.tracking.records import FOLDER as RECORDS

CHECKPOINTS, STUDIO, REPRODUCED, PARTIAL = (
    "checkpoints",
    "the studio's pipelines",
    "copies of darkroom reproduce",
    "unfinished files",
)
ASSEMBLED = FOLDER / "studio"
WRITTEN_TO = (ARTIFACTS, Path("data"), Path("reports"), Path("samples"), FOLDER, RECORDS)
OVER = 3600.0  # seconds after which a file that was being written no longer is


def checkpoints(stages: list[str]) -> tuple[list[Item], list[str]]:
    """Those of trainings that would not begin now, of other parameters, data or code; and remarks on others."""
    items, remarks = [], []
    for folder in sorted(path for path in FOLDER.glob("*") if path.is_dir() and path != ASSEMBLED):
        trainings = sorted(path for path in folder.iterdir() if path.is_dir())
        now = present_fingerprint(folder.name) if folder.name in stages and trainings else ""
        if trainings and folder.name in stages and not now:
            why = "its data or parameters are not here, so that nobody can tell which it would resume from"
            remarks.append(f"checkpoints of {folder.name} stay: {why}")
            continue
        items += [_training(training) for training in trainings if training.name != now]
    return items, remarks


def leftovers() -> list[Item]:
    """What the studio assembled, what darkroom reproduce left for a look, and files that were being written."""
    found = []
    drawing = any(is_taken(lock) for lock in ASSEMBLED.glob("*.lock"))  # a studio that runs holds one
    for kind, folders in ((STUDIO, () if drawing else ASSEMBLED.glob("*")), (REPRODUCED, COPIES.glob("*"))):
        for folder in sorted(folders):
            if folder.is_dir() and not _is_worked_in(folder):
                found.append(Item(kind, f"{folder}, {_age(folder)}", (folder,), size_of([folder])))
    partial = [path for path in _partial() if time.time() - path.lstat().st_mtime > OVER]
    return found + [Item(PARTIAL, str(path), (path,), size_of([path])) for path in partial]


def _training(training: Path) -> Item:
    steps = sorted(training.glob("step_*"))
    at = f"step {int(steps[-1].name.removeprefix('step_')):,}" if steps else "parts of its output"
    what = f"{training.parent.name} {training.name[:8]}, {at}, {_age(training)}: of other parameters, data or code"
    return Item(CHECKPOINTS, what, (training,), size_of([training]))


def _age(path: Path) -> str:
    return f"written {duration(max(time.time() - path.stat().st_mtime, 0))} ago"


def _partial() -> Iterator[Path]:
    for folder in WRITTEN_TO:
        yield from folder.rglob(".*.partial") if folder.is_dir() else ()


def _is_worked_in(folder: Path) -> bool:
    """Whether a process has it, or a folder in it, as its current one."""
    root = folder.resolve()
    for process in psutil.process_iter(["cwd"]):
        if (here := process.info["cwd"]) and Path(here).is_relative_to(root):
            return True
    return False
