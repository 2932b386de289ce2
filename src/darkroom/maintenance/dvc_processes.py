"""Who works with DVC in this project, by the file in which DVC notes that."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from darkroom.core.dvc_settings import DVC
from darkroom.core.errors import DarkroomError

NOTES = DVC / "tmp" / "rwlock"
COPIES = DVC / "tmp" / "exps"  # where experiments run that do not run in the project itself


@dataclass(frozen=True)
class Holder:
    """A process that DVC notes as at work. process: None where it is gone."""

    pid: int
    command: str
    process: psutil.Process | None

    @property
    def is_dvc(self) -> bool:
        """Whether it is still a dvc, and not another process that was given the same number since."""
        if self.process is None:
            return False
        try:
            return any("dvc" in Path(word).name for word in self.process.cmdline()[:4])
        except psutil.AccessDenied:  # of another user
            return True
        except psutil.Error:
            return False


def holders(notes: Path = NOTES) -> list[Holder]:
    """The processes that hold a lock on files of the project, each once.

    Raises:
        DarkroomError: the file is torn, and every dvc refuses to work until it is gone.
    """
    if not notes.is_file():
        return []
    try:
        found = dict(_noted(json.loads(notes.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise DarkroomError(f"{notes}: cannot be read, and dvc works no more; while no dvc runs, rm {notes}") from None
    return [Holder(pid, command, _process(pid)) for pid, command in found.items()]


def check_nobody_works() -> None:
    """Raises DarkroomError: a dvc works here, and may be about to name what nothing names yet."""
    copies = (path / NOTES for depth in ("*", "*/*") for path in COPIES.glob(depth))
    for holder in (holder for notes in (NOTES, *copies) for holder in holders(notes)):
        if holder.is_dvc:
            raise DarkroomError(f"dvc works here (process {holder.pid}: dvc {holder.command}); wait for it, or end it")


def _noted(content: dict[str, dict[str, object]]) -> Iterator[tuple[int, str]]:
    for by_path in content.values():
        for infos in by_path.values():
            for info in infos if isinstance(infos, list) else [infos]:
                yield int(info["pid"]), str(info["cmd"])  # type: ignore[index]


def _process(pid: int) -> psutil.Process | None:
    try:
        found = psutil.Process(pid)
        return None if found.status() == psutil.STATUS_ZOMBIE else found
    except psutil.Error:
        return None
