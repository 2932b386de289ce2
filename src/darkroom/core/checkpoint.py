"""Checkpoints: all that a training has become, so that it resumes after any end exactly as if there had been none."""

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from darkroom.core.artifact import load_tensors, save_tensors
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import Interrupted, Interruption
from darkroom.core.nested import pack, unpack
from darkroom.core.shards import FILES, load_shards

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
SHARDED = "sharded"  # in STATE: names of the tensors of which each process wrote a part
KEPT = 2  # checkpoints of one training: where the newest is damaged, there is the one before
TRAININGS = 3  # of one stage, with other parameters, code or data, whose checkpoints are kept
SHARE = 0.02  # of a training's time that saving may take, where it is done by the clock
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
log = logging.getLogger("darkroom")


class Stateful(Protocol):
    """What a checkpoint holds: nested dicts, lists and tuples of tensors, numbers and texts."""

    def state_dict(self) -> Mapping[str, Any]: ...
    def load_state_dict(self, state: Any) -> Any: ...


class Storage(Protocol):
    """How the content of a checkpoint lies in its folder, and who writes it: this process, or several together.

    Several call everything as often and in the same order; what one of them raises, all raise.
    """

    def decided(self, action: int) -> int:
        """What is to be done, as the process that leads has decided."""
        ...

    def alone(self, action: Callable[[], None]) -> None:
        """Have one process do it, while the others wait."""
        ...

    def write(self, folder: Path, content: Mapping[str, Any]) -> None:
        """Write `content`, whose "parts" are `Stateful`, into an empty folder, onto the disk itself."""
        ...

    def read(self, folder: Path) -> dict[str, Any]:
        """What was written, whichever storage wrote it; its parts as their `state_dict` gave them.

        Raises DarkroomError, OSError, ValueError or KeyError: it is damaged.
        """
        ...


class OneFile:
    """The `Storage` of one process: all tensors in one file."""

    def decided(self, action: int) -> int:
        """See `Storage`."""
        return action

    def alone(self, action: Callable[[], None]) -> None:
        """See `Storage`."""
        action()

    def write(self, folder: Path, content: Mapping[str, Any]) -> None:
        """See `Storage`."""
        state, tensors = packed(content)
        save_tensors(folder / TENSORS, tensors)
        write_state(folder, state, {TENSORS: file_digest(folder / TENSORS)})

    def read(self, folder: Path) -> dict[str, Any]:
        """See `Storage`."""
        for name in check_manifest(folder):
            check_file(folder, name)
        state = read_state(folder)
        sharded = SHARDED in state
        tensors = load_shards(folder, lambda name, ndim: False, None) if sharded else load_tensors(folder / TENSORS)
        return {**state, "parts": unpack(state["parts"], tensors)}


NOTHING, SAVE = 0, -1  # what is to be done after a step; a positive number: save and end, for this signal came


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: of this training and no other: its name is a fingerprint of all that makes the result. None: no
            checkpoints.
        profile: where and how it runs. Another one may resume, with a warning.
        minutes: between two checkpoints; more where saving takes so long that it would be above SHARE. 0: none.
        steps: between two checkpoints, besides; 0: by the clock alone.
        interruption: who tells when to end.

    storage: how they are written; OneFile unless another is put there.
    """

    def __init__(
        self, folder: Path | None, profile: Mapping[str, str], minutes: float, steps: int, interruption: Interruption
    ) -> None:
        self.folder, self.profile, self.interruption = folder, dict(profile), interruption
        self.minutes, self.steps = minutes, steps
        self.storage: Storage = OneFile()
        self.resumed: int | None = None  # the step it resumed from
        self._cost = 0.0  # seconds that the last one took
        self._last = time.monotonic()

    @classmethod
    def none(cls) -> "Checkpoints":
        """For trainings that are started anew each time."""
        return cls(None, {}, 0, 0, Interruption())

    def resume(self, states: Mapping[str, Stateful], end: int) -> int:
        """Bring `states` to the newest whole checkpoint; the steps it had done, 0 where there is none.

        end: the step after which the training is to end. What was saved on the way to another end is as good, but not
        what lies beyond this one, nor what was done only because the training ended there, or did not.
        """
        self._last = time.monotonic()
        if self.folder is None:
            return 0
        for path in reversed(_found(self.folder)):
            try:
                content = self.storage.read(path)
                step, aimed_at = int(content["step"]), int(content["end"])
            except (OSError, ValueError, KeyError, DarkroomError) as error:
                log.warning("%s: damaged (%s); going back to the one before it", path, error)
                continue
            if not (step < min(end, aimed_at) or step == end == aimed_at):
                why = "beyond that" if step > end else "of a training that did not end there"
                log.warning("%s: left out, for the training is to end after step %d; this is %s", path, end, why)
                continue
            if differing := [key for key, value in self.profile.items() if content["profile"].get(key) != value]:
                was = ", ".join(f"{key} was {content['profile'].get(key)}, is {self.profile[key]}" for key in differing)
                log.warning("%s: of another execution profile (%s); the result may differ in its last bits", path, was)
            for name, state in states.items():
                state.load_state_dict(content["parts"][name])
            self.resumed = step
            log.warning("resuming from step %d (%s)", self.resumed, path)
            return self.resumed
        return 0

    @property
    def newest(self) -> int | None:
        """The steps that the newest checkpoint had done, whole or not; None where there is none."""
        found = [] if self.folder is None else _found(self.folder)
        return int(found[-1].name.removeprefix("step_")) if found else None

    def after(
        self, step: int, states: Mapping[str, Stateful], end: int, check: Callable[[], None] = lambda: None
    ) -> None:
        """Save, where it is time or the end was asked for; call when `step` steps are done, hooks and all.

        end: the step after which the training ends.
        check: called before anything is saved; what it raises is passed on.
        Raises Interrupted: the end was asked for.
        """
        action = self.storage.decided(self._due(step))
        if action == NOTHING:
            return
        if action > NOTHING:
            self.interruption.settle()
        check()
        saved = self.folder is not None and self._save(self.folder, step, states, end)
        if action > NOTHING:
            raise Interrupted(action, f"saved at step {step}" if saved else "")

    def _due(self, step: int) -> int:
        """The number of a signal that came, SAVE or NOTHING."""
        if (number := self.interruption.asked) is not None:
            return number
        if self.folder is None:
            return NOTHING
        waited = time.monotonic() - self._last
        by_clock = self.minutes > 0 and waited >= max(60 * self.minutes, self._cost / SHARE)
        return SAVE if by_clock or (self.steps and step % self.steps == 0) else NOTHING

    def _save(self, folder: Path, step: int, states: Mapping[str, Stateful], end: int) -> bool:
        """Whether it could be: a full disk ends no training."""
        began = time.monotonic()
        path = folder / f"step_{step:09d}"
        beside = folder / f".{path.name}.partial"
        try:
            self.storage.alone(partial(_make_empty, beside))
            self.storage.write(beside, {"step": step, "end": end, "profile": self.profile, "parts": states})
            self.storage.alone(partial(_publish, beside, path))
        except OSError as error:
            self.storage.alone(partial(shutil.rmtree, beside, ignore_errors=True))
            if error.errno not in FULL:
                raise
            log.warning("%s: cannot be written (%s); training continues without it, earlier ones are kept", path, error)
            return False
        finally:
            self._last = time.monotonic()
            self._cost = self._last - began
        self.storage.alone(partial(_clear_old, folder))
        return True


def _make_empty(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _publish(beside: Path, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    beside.replace(path)
    sync(path.parent)


def _clear_old(folder: Path) -> None:
    """Keep the newest checkpoints of this training, and the newest trainings of the stage."""
    for old in sorted(_found(folder), key=lambda saved: saved.stat().st_mtime_ns)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    keep_latest(folder)


def keep_latest(folder: Path) -> None:
    """Of the folders beside `folder` remove all but the latest, so that TRAININGS remain."""
    others = (f for f in folder.parent.iterdir() if f.is_dir() and f != folder)
    for other in sorted(others, key=lambda f: f.stat().st_mtime)[: -(TRAININGS - 1)]:
        shutil.rmtree(other, ignore_errors=True)


def _found(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*") if path.is_dir())


def packed(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What goes into STATE, and the tensors by name."""
    tensors: dict[str, Any] = {}
    states = {name: state.state_dict() for name, state in content["parts"].items()}
    return {**content, "parts": pack(states, tensors)}, tensors


def write_state(folder: Path, state: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """The rest of a checkpoint, whose tensors lie in files of these digests; what has no manifest is damaged."""
    (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
    manifest = {**digests, STATE: file_digest(folder / STATE)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    for file in folder.iterdir():
        sync(file)
    sync(folder)


def read_state(folder: Path) -> dict[str, Any]:
    """What `write_state` was given as state."""
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return state


def check_manifest(folder: Path) -> list[str]:
    """The names of the files that a checkpoint consists of.

    Raises DarkroomError: there are tensors in another one, which would be read with the rest.
    """
    names = list(json.loads((folder / MANIFEST).read_text()))
    if strange := {file.name for file in folder.glob(FILES)} - set(names):
        raise DarkroomError(f"{min(strange)} does not belong to it")
    return names


def check_file(folder: Path, name: str) -> None:
    """Raises DarkroomError: one of those files is not what was written."""
    expected = json.loads((folder / MANIFEST).read_text())[name]
    if file_digest(folder / name) != expected:
        raise DarkroomError(f"{name} is not what was written")


def file_digest(path: Path) -> str:
    """SHA-256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """A file or folder onto the disk itself, so that a power cut leaves no name without its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
