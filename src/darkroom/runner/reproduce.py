"""Making a stage of the last commit again, in a copy of that commit, and comparing what it writes with dvc.lock."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from darkroom.config.lock_file import LockedStage, parse_lock, read_lock
from darkroom.config.stage_spec import LOCK, PIPELINE
from darkroom.core.artifact import content_hash, read_json
from darkroom.core.errors import DarkroomError
from darkroom.runner.project_copy import PROFILE, REPRODUCTION, SEARCHED, own_code_first, programs_of_python_first
from darkroom.tracking.address import is_on, location, project_root
from darkroom.tracking.availability import check_answers
from darkroom.tracking.query import store_exists
from darkroom.tracking.repository import SilentGitError, git_text
from darkroom.tracking.store import Store

COPIES = Path(".reproduce")  # below it a copy of the project for each stage
ENDS_WITHIN = 15.0  # seconds that a stage has after Ctrl-C; it needs ten at most
DVC = (sys.executable, "-m", "dvc")


@dataclass(frozen=True)
class Files:
    """How the files of a folder differ from those it had: names relative to it."""

    changed: list[str]
    missing: list[str]
    new: list[str]


@dataclass(frozen=True)
class Output:
    """An output, its hash in dvc.lock and now; files: of a folder that differs, where the old listing can be had."""

    path: str
    recorded: str
    found: str
    files: Files | None

    @property
    def same(self) -> bool:
        return self.recorded == self.found


@dataclass(frozen=True)
class Reproduction:
    """A stage made again.

    commit: whose code, parameters and dvc.lock were taken. recorded: the execution profile of a run that wrote what
    dvc.lock says, where one is known; here: that of this one, unless the committed stage is too old to say it. folder:
    where the new outputs lie, if they differ.
    """

    stage: str
    commit: str
    seconds: float
    outputs: list[Output]
    recorded: dict[str, str] | None
    here: dict[str, str] | None
    folder: Path | None

    @property
    def identical(self) -> bool:
        return self.folder is None


def reproduce(stage: str) -> Reproduction:
    """Run a stage of the last commit and compare its outputs with that commit's dvc.lock.

    Works in a copy, below PLACE: the project's own files stay as they are. The copy stays only where outputs differ.
    Raises DarkroomError: no such stage, what it depends on cannot be had or is not what dvc.lock says, or it failed.
    """
    if not PIPELINE.is_file():
        raise DarkroomError(f"{PIPELINE}: no such file here; run darkroom from the project's folder")
    commit, lock = git_text("rev-parse", "--verify", "HEAD"), _committed_lock()
    if stage not in lock:
        close = get_close_matches(stage, lock, n=1)
        raise DarkroomError(
            f"{stage}: {LOCK} of the last commit has no such stage; "
            + (f"did you mean {close[0]}?" if close else f"it has {', '.join(lock)}")
        )
    folder = _folder(stage)
    try:
        recorded = _recorded_profile(lock[stage].outputs)
        began = time.monotonic()
        copy = _copy(folder)
        _checkout_inputs(stage, [Path(path) for path in (*lock[stage].inputs, *lock[stage].code)], copy)
        _check_unchanged(stage, copy)
        here = _run(stage, copy)
        made = read_lock(copy / LOCK)[stage]
        outputs = _compared(lock[stage].outputs, made.outputs, copy)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    same = all(output.same for output in outputs)
    if same:
        shutil.rmtree(folder)
    return Reproduction(stage, commit, time.monotonic() - began, outputs, recorded, here, None if same else copy)


def _committed_lock() -> Mapping[str, LockedStage]:
    try:
        text = git_text("show", f"HEAD:./{LOCK}")
    except SilentGitError:
        raise
    except DarkroomError:
        raise DarkroomError(f"{LOCK}: the last commit has none; run dvc repro and commit it") from None
    return parse_lock(text)


def _recorded_profile(outputs: Mapping[str, str]) -> dict[str, str] | None:
    """The profile of the latest run known to have written one of these."""
    if not (is_on() and store_exists()):
        return None
    check_answers(location())
    store = Store()
    profiles = (store.profile_of_maker(path, digest) for path, digest in outputs.items())
    return next((profile for profile in profiles if profile), None)


def _folder(stage: str) -> Path:
    """An empty folder for the copy, made by this process and no other."""
    folder = COPIES / stage
    COPIES.mkdir(exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        raise DarkroomError(
            f"{folder}: is there already: outputs that came out otherwise, or what one that was killed left; unless "
            f"another darkroom reproduce works in it now, move it away, or remove it: rm -r {folder}"
        ) from None
    return folder


def _copy(folder: Path) -> Path:
    """The last commit in `folder`, which is empty; returns where in it the project is."""
    top, inside = git_text("rev-parse", "--show-toplevel"), git_text("rev-parse", "--show-prefix")
    git_text("clone", "--quiet", top, str(folder))
    return folder / inside


def _checkout_inputs(stage: str, dependencies: Sequence[Path], copy: Path) -> None:
    """Put in place what the stage depends on and git does not keep: from DVC's cache, else from its remote."""
    wanted = [path.as_posix() for path in dependencies if not (copy / path).exists()]
    if not wanted:
        return
    _dvc("config", "--local", "cache.dir", str(_cache()), at=copy)
    if _dvc("checkout", *wanted, at=copy).returncode == 0:
        return
    fetched = _fetch(wanted)
    if _dvc("checkout", *wanted, at=copy).returncode != 0:
        missing = [path for path in wanted if not (copy / path).exists()]
        raise DarkroomError(
            f"{stage}: needs {', '.join(missing or wanted)}, which is neither in DVC's cache nor came from its remote "
            f"({fetched}); see to the remote (dvc remote list), or make it here: dvc repro {stage}"
        )


def _fetch(paths: Sequence[str]) -> str:
    """Fetch what dvc.lock says of these paths into the cache; what DVC said about it, in one line."""
    if changed := git_text("diff", "--name-only", "HEAD", "--", str(LOCK), str(PIPELINE)):
        raise DarkroomError(
            f"{changed.splitlines()[0]}: differs from the last commit, whose data are to be fetched; "
            "commit it, or put it aside with git stash"
        )
    done = _dvc("fetch", *paths)
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    reasons = [line for kind in ("ERROR", "No remote", "WARNING") for line in said if line.startswith(kind)]
    return reasons[0] if reasons else "DVC does not say why"


def _check_unchanged(stage: str, copy: Path) -> None:
    """Refuse a commit whose dvc.lock was not made by what is committed with it."""
    done = _dvc("status", "--json", stage, at=copy)
    try:
        found = json.loads(done.stdout).get(stage, [])
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
        raise DarkroomError(f"{stage}: dvc status failed ({reason}); run dvc status here") from None
    for change in found:
        if isinstance(change, str) or "changed outs" not in change:
            what = change if isinstance(change, str) else f"changed: {', '.join(_names(change['changed deps']))}"
            raise DarkroomError(
                f"{stage}: {LOCK} of the last commit was not made by what is committed with it ({what}); "
                f"run dvc repro {stage} and commit {LOCK}, or check out the commit that made it"
            )


def _names(changes: Mapping[str, Any]) -> list[str]:
    """Paths, and of params files the keys."""
    return [name for key, kind in changes.items() for name in ([key] if isinstance(kind, str) else kind)]


def _run(stage: str, copy: Path) -> dict[str, str] | None:
    """Run the stage whatever DVC knows of it, and from its first step; what it says goes to stderr.

    Returns its execution profile, if it says it.
    """
    reproduction = (copy / COPIES).resolve()
    command = [*DVC, "repro", "--force", "--single-item", "--no-commit", stage]
    reason = "it says nothing"
    with subprocess.Popen(
        command,
        cwd=copy,
        env={**_environment(), SEARCHED: own_code_first(), REPRODUCTION: str(reproduction)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as running:
        assert running.stdout is not None
        try:
            for line in running.stdout:
                sys.stderr.write(line)
                if line.startswith("darkroom: ") or (line.startswith("ERROR: ") and "darkroom: " not in reason):
                    reason = line.strip()
        except KeyboardInterrupt:
            _wait_for_exit(running)
            raise
    if running.returncode:
        raise DarkroomError(f"{stage}: could not be made again ({reason.removeprefix('darkroom: ')})")
    profile: dict[str, str] | None = read_json(reproduction / PROFILE) if (reproduction / PROFILE).is_file() else None
    return profile


def _wait_for_exit(running: "subprocess.Popen[str]") -> None:
    """After Ctrl-C, wait until the stage has left the copy, and pass on what it says; a second Ctrl-C ends the wait."""
    try:
        said, _ = running.communicate(timeout=ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        running.terminate()  # the signal came to this process alone, and a stage ends with its dvc
        said, _ = running.communicate()
    sys.stderr.write(said)


def _compared(recorded: Mapping[str, str], found: Mapping[str, str], copy: Path) -> list[Output]:
    outputs = []
    for path, before in recorded.items():
        now = found.get(path, "none")
        folder = before != now and before.endswith(".dir") and (copy / path).is_dir()
        outputs.append(Output(path, before, now, _files(path, before, copy) if folder else None))
    return outputs


def _files(path: str, before: str, copy: Path) -> Files | None:
    """How the files of a folder differ from those listed under the hash `before`; None where no list can be had."""
    listing = _cache() / "files" / "md5" / before[:2] / before[2:]  # DVC's cache; of a folder [{md5, relpath}]
    try:
        if not listing.is_file():
            _fetch([path])
        old = {entry["relpath"]: entry["md5"] for entry in read_json(listing)}
    except (DarkroomError, KeyError, TypeError):  # the work of hours is done: what came out stands without the list
        return None
    root = copy / path
    new = {file.relative_to(root).as_posix(): content_hash(file) for file in root.rglob("*") if file.is_file()}
    return Files(
        changed=sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
        missing=sorted(old.keys() - new.keys()),
        new=sorted(new.keys() - old.keys()),
    )


def _cache() -> Path:
    return Path(_dvc("cache", "dir").stdout.strip())


def _environment() -> dict[str, str]:
    """The installation's own `python` for the stage, and the project's own store of runs, not one in the copy."""
    return {**os.environ, "PATH": programs_of_python_first(), "DVC_ROOT": str(project_root())}


def _dvc(*arguments: str, at: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*DVC, *arguments], cwd=at, env=_environment(), capture_output=True, text=True, check=False)
