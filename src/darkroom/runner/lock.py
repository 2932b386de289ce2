"""One process at a time writes a stage's outputs, and none outlives the dvc that started it."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from darkroom.core.errors import DarkroomError
from darkroom.runner.launch import REPORTS

SHELLS = ("sh", "bash", "dash", "zsh", "fish", "ksh", "cmd.exe", "powershell.exe")
WATCH_EVERY = 1.0  # seconds
WAIT = 30.0  # seconds for an earlier run of a stage to end
log = logging.getLogger("darkroom")


@contextmanager
def exclusive(stage: str, lock: Path) -> Iterator[None]:
    """Hold `lock` while the block writes the outputs of `stage`.

    An earlier run of it, whose dvc was killed, ends first. Raises DarkroomError: another run of the stage still works
    on them after WAIT seconds.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock_file = FileLock(lock)
    try:
        lock_file.acquire(timeout=0)
    except Timeout:
        log.warning("%s: another run of it still writes here; waiting for its end", stage)
        try:
            lock_file.acquire(timeout=WAIT)
        except Timeout:
            raise DarkroomError(
                f"{lock}: another run of {stage} works in this folder; wait for it, or end it, and run again"
            ) from None
    try:
        yield
    finally:
        lock_file.release()


def is_taken(lock: Path) -> bool:
    """Whether a process holds a lock."""
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def exit_with_dvc() -> None:
    """Where dvc started this process, end as by SIGTERM once that dvc is gone. Started otherwise, do nothing."""
    if "DVC_STAGE" in os.environ:
        threading.Thread(target=_watch, args=(parent_dvc(),), name="watch dvc", daemon=True).start()


def parent_dvc() -> psutil.Process | None:
    """The dvc that started this process, or torchrun in it; None where it is gone already: imports take seconds.

    dvc gives its stages no session of their own, and who takes in orphans is of another one.
    """
    try:
        stage = psutil.Process(os.getppid() if REPORTS in os.environ else None)  # a rank has a session of its own
        found = stage.parent()
        while found is not None and found.name() in SHELLS:
            found = found.parent()
        strange = found is not None and hasattr(os, "getsid") and os.getsid(found.pid) != os.getsid(stage.pid)
    except (psutil.Error, OSError):
        return None
    return None if strange else found


def _watch(parent_dvc: psutil.Process | None) -> None:
    with suppress(psutil.NoSuchProcess):
        while parent_dvc is not None and parent_dvc.is_running() and parent_dvc.status() != psutil.STATUS_ZOMBIE:
            time.sleep(WATCH_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
