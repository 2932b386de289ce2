"""`darkroom keep`: the outputs of a stage whose code changed stay as they are, and a note says so."""

import subprocess
import sys
import time
from pathlib import Path

from darkroom.config.lock_file import read_lock
from darkroom.config.stage_spec import LOCK, stage_spec
from darkroom.core.errors import DarkroomError
from darkroom.project.code_files import recorded_stages, some, sync
from darkroom.project.kept import Kept, file_of, forget
from darkroom.runner.differences import Comparison, Differences, changed_code
from darkroom.runner.lock import exclusive
from darkroom.runner.resuming import FOLDER


def keep(stage: str) -> Kept:
    """Have dvc.lock say that the present code made the outputs of a stage, and note which code it really was.

    Raises:
        DarkroomError: its code is as it was, or something else than code is not; nothing is changed then.
    """
    spec = stage_spec(stage)
    with exclusive(stage, FOLDER / f"{stage}.lock"):
        if recorded_stages({stage: spec}):
            sync()
        locked = read_lock().get(stage)
        if locked is None:
            raise DarkroomError(f"{stage}: never ran, says {LOCK}, so there is nothing to keep; run dvc repro {stage}")
        comparison = Comparison()
        found = comparison.differences(spec, locked)
        _check(stage, found)
        earlier, code = Kept.of(stage, locked.code), comparison.code_of(spec)
        made_by = dict(earlier.made_by if earlier else locked.code)
        since = earlier.since if earlier else time.strftime("%Y-%m-%d %H:%M")
        why = some(changed_code(stage, locked, found.code))
        note = Kept(stage, since, made_by, code, f"{earlier.why}; {why}" if earlier else why)
        _commit(note)
        return note


def _check(stage: str, found: Differences) -> None:
    if not found:
        raise DarkroomError(f"{stage}: is up to date, so there is nothing to keep")
    others = {
        "outputs are not those that it wrote": (found.outputs, f"dvc checkout {stage}, or dvc repro {stage}"),
        "its data changed": (found.inputs, f"dvc repro {stage}"),
        "its parameters changed": (found.params, f"dvc repro {stage}, or change them back"),
        "dvc.yaml starts it otherwise": (found.definition, f"dvc repro {stage}"),
    }
    for what, (names, remedy) in others.items():
        if names:
            raise DarkroomError(f"{stage}: not only code differs: {what} ({some(names)}); {remedy}")


def _commit(note: Kept) -> None:
    """Write the note, then dvc.lock; where DVC does not do that, or is interrupted, both are as before."""
    path = file_of(note.stage)
    earlier = path.read_bytes() if path.is_file() else None
    try:
        note.write()
        command = [sys.executable, "-m", "darkroom.runner.commit", note.stage]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            said = lines[0] if lines else "it does not say why"
            raise DarkroomError(f"{note.stage}: dvc commit did not take it over ({said}); see dvc status")
    except BaseException:
        if not _is_committed(note):
            _restore(path, earlier)
        raise
    if note.made_by == note.code:  # the code is again what made the outputs
        forget(note.stage)


def _is_committed(note: Kept) -> bool:
    try:
        now = read_lock().get(note.stage)
    except DarkroomError:
        return False
    return now is not None and dict(now.code) == note.code


def _restore(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)
