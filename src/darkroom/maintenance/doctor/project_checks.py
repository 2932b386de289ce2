"""params.yaml, the data from outside, and checkpoints that wait."""

import os
import shlex
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from darkroom.config.params import PARAMS_FILE, Params, load, problems, read
from darkroom.config.paths import PREPARED, RAW
from darkroom.config.upgrade import is_older
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import duration, readable_size
from darkroom.core.text import plural
from darkroom.data.manifest import ROOT_VARIABLE, Files, Manifest, manifest_of
from darkroom.maintenance.doctor.result import Result, from_error, ok, problem, warning
from darkroom.maintenance.sizes import size_of
from darkroom.runner.resuming import FOLDER
from darkroom.tracking.repository import GitError, git_bytes

STALE_DAYS = 7.0
DAY = 86_400  # seconds


def check_parameters() -> Iterator[Result]:
    """Whether params.yaml says all that the stages ask, and nothing else."""
    if not PARAMS_FILE.is_file():
        command = f"git checkout HEAD -- {PARAMS_FILE}" if _is_sound_at_head() else "darkroom recipe use scenes"
        yield problem("parameters", f"{PARAMS_FILE}: not there: no stage would start", "", command)
        return
    try:
        faults = problems()
    except DarkroomError as error:
        yield from_error("parameters", error, _restore())
        return
    if not faults:
        yield ok("parameters", f"{PARAMS_FILE} is sound")
        return
    more = f" (and {len(faults) - 1} more: darkroom params check)" if len(faults) > 1 else ""
    what, _, remedy = faults[0].rpartition("; ")
    found = f"{what or faults[0]}{more}: no stage would start"
    if is_older(read(PARAMS_FILE)):
        yield problem("parameters", found, "bring it to today's keys", "darkroom params upgrade")
    else:
        restore = _restore()
        yield problem("parameters", found, f"{remedy}{', or take the committed file' if restore else ''}", restore)


def check_data() -> Iterator[Result]:
    """Whether the files that prepare_data reads are where it looks, by their names and sizes."""
    try:
        params = load()
    except DarkroomError:
        return  # it is said of the parameters
    source = params.prepare_data.source
    if source.synthetic:
        yield ok("data", f"{source.kind}, which prepare_data draws itself")
        return
    root, manifest = (
        str(getattr(source, "root", ".")),
        manifest_of(str(getattr(source, "root", ".")), _manifest(params)),
    )
    folder = Files(root).root
    if not folder.is_dir():
        if getattr(source, "download", False):
            yield ok("data", f"{folder}: not there yet; prepare_data fetches it")
            return
        needed = "prepare_data would fail"
        elsewhere = ROOT_VARIABLE in os.environ and (RAW / root).is_dir()
        remedy = (
            f"{RAW / root} is there" if elsewhere else f"put them there, or set {ROOT_VARIABLE} to the folder above"
        )
        report = warning if PREPARED.is_dir() else problem
        if PREPARED.is_dir():
            needed = f"{PREPARED} is there, and prepare_data could not make it again"
        yield report(
            "data", f"{folder}: no such folder: {needed}", remedy, f"unset {ROOT_VARIABLE}" if elsewhere else ""
        )
        return
    if manifest is None:
        yield ok("data", f"{folder}, without a manifest")
        return
    yield from _against_manifest(folder, manifest)


def check_checkpoints() -> Iterator[Result]:
    """Trainings that wait to be resumed, and those that nobody has resumed for long."""
    trainings = [path for path in FOLDER.glob("*/*") if path.is_dir() and any(path.glob("step_*"))]
    if not trainings:
        yield ok("checkpoints", "none: no training waits to be resumed")
        return
    latest = {path: max(step.stat().st_mtime for step in path.glob("step_*")) for path in trainings}
    stale = [path for path, at in latest.items() if time.time() - at > STALE_DAYS * DAY]
    size = readable_size(size_of(trainings))
    newest = max(latest, key=lambda path: latest[path])
    ago = duration(max(time.time() - latest[newest], 0))
    found = f"{plural(len(trainings), 'training')}, {size}; the latest of {newest.parent.name}, written {ago} ago"
    if stale:
        old = f"{found}; {len(stale)} not resumed for {STALE_DAYS:.0f} days"
        yield warning("checkpoints", old, "see what nothing names any more", "darkroom gc")
    else:
        yield ok("checkpoints", f"{found}; dvc repro resumes it if parameters, data and code are as they were")


def _against_manifest(folder: Path, file: Path) -> Iterator[Result]:
    try:
        manifest = Manifest.load(file)
    except DarkroomError as error:
        rescan = "darkroom data scan"
        yield from_error("data", error, rescan)
        return
    sizes = {name: (folder / name).stat().st_size if (folder / name).is_file() else None for name in manifest.files}
    gone = [name for name, size in sizes.items() if size is None]
    other = [name for name, size in sizes.items() if size not in (None, manifest.files[name].size)]
    for names, word in ((gone, "missing"), (other, "of another size")):
        if names:
            found = f"{len(names)} of {len(sizes)} files of {file} are {word} in {folder}, first {names[0]}"
            remedy = "put them back; or, if that is intended, write the manifest anew"
            yield problem("data", f"{found}: prepare_data would fail", remedy, "darkroom data scan")
    if not (gone or other):
        yield ok("data", f"{folder}: the {len(sizes)} files of {file}, by name and size (darkroom audit hashes them)")


def _manifest(params: Params) -> str | None:
    found = getattr(params.prepare_data.source, "manifest", None)
    return None if found is None else str(found)


def _restore() -> str:
    """The command that brings the committed params.yaml back, where that is sound."""
    return f"git checkout HEAD -- {shlex.quote(str(PARAMS_FILE))}" if _is_sound_at_head() else ""


def _is_sound_at_head() -> bool:
    try:
        committed = git_bytes("show", f"HEAD:./{PARAMS_FILE}")
        with tempfile.TemporaryDirectory() as beside:
            file = Path(beside) / PARAMS_FILE
            file.write_bytes(committed)
            return not problems(file)
    except (GitError, DarkroomError, OSError):
        return False
