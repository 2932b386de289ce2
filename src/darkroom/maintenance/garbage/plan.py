"""What `darkroom gc` would remove, and removing it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.config.stage_spec import stage_specs
from darkroom.core.artifact import remove
from darkroom.core.errors import DarkroomError
from darkroom.maintenance.doctor.dvc_checks import opened
from darkroom.maintenance.dvc_processes import check_nobody_works
from darkroom.maintenance.garbage import cache, copies, leftovers
from darkroom.maintenance.garbage.item import Item
from darkroom.maintenance.garbage.references import References, references
from darkroom.runner.lock import is_taken
from darkroom.runner.resuming import FOLDER
from darkroom.tracking.address import is_on, location, without_password
from darkroom.tracking.query import RunQuery, store_exists


@dataclass(frozen=True)
class Plan:
    """items: what may go. kept: what refers to the rest. remarks: what was not looked at, and why."""

    items: list[Item]
    kept: References
    remarks: list[str]

    @property
    def bytes(self) -> int:
        """In all, of the disk."""
        return sum(item.bytes for item in self.items)


def plan(experiments: bool = False) -> Plan:
    """What nothing refers to, in the current project. Changes nothing.

    Args:
        experiments: keep what the experiments of DVC refer to.

    Raises:
        DarkroomError: no project here, a dvc or a stage works in it, or somebody who must be asked does not answer.
    """
    stages = list(stage_specs())
    check_nobody_works()
    _check_no_stage_works()
    remarks = []
    query = RunQuery() if _is_asked() else None
    if query is None and store_exists():
        remarks.append("DARKROOM_TRACKING=off: the store of runs was not asked which versions are registered")
    kept = references(query, experiments)
    items: list[Item] = []
    if elsewhere := cache.why_not_swept():
        remarks.append(elsewhere)
    else:
        with _project() as repo:
            items += cache.unreferenced_objects(repo, kept, experiments)
    found, said = leftovers.checkpoints(stages)
    items += [*found, *leftovers.leftovers()]
    if query is not None and query.tables is not None:
        items += copies.unreferenced_copies(query, query.tables, kept)
    elif query is not None:
        remarks.append(f"{without_password(location())}: copies on a server are left alone")
    return Plan([item for item in items if item.bytes > 0 or item.paths], kept, remarks + said)


def carry_out(expected: Plan, experiments: bool = False) -> tuple[int, list[str]]:
    """Remove what was planned, as far as it is still referred to by nothing; the bytes that are free, and remarks.

    Raises:
        DarkroomError: as `plan`.
    """
    from dvc.lock import LockError

    with _project() as repo:
        try:
            repo.lock.lock()
        except LockError:
            raise DarkroomError("dvc works here; wait for it, or end it, and run darkroom gc again") from None
        try:
            return _remove_all(expected, plan(experiments))
        finally:
            repo.lock.unlock()


def _remove_all(expected: Plan, now: Plan) -> tuple[int, list[str]]:
    before = {path for item in expected.items for path in item.paths}
    items = [item for item in now.items if before.issuperset(item.paths) or item.kind == cache.KIND]
    freed, remarks = 0, list[str]()
    of_runs = [item for item in items if item.run]
    for item in items:
        if item.run:
            continue
        paths = [path for path in item.paths if path in before]
        for path in paths:
            remove(path)
        _clear(paths)
        freed += item.bytes
    if of_runs:
        remarks = list(copies.remove_copies(of_runs, RunQuery()))
        freed += sum(item.bytes for item in of_runs if not any(path.exists() for path in item.paths))
    return freed, remarks


def _clear(paths: Sequence[Path]) -> None:
    """Remove the folders that hold nothing any more."""
    for folder in {path.parent for path in paths}:
        if folder.is_dir() and not any(folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)


def _check_no_stage_works() -> None:
    """Raises DarkroomError: a stage works here, which may have been started without dvc."""
    for lock in sorted(FOLDER.glob("*.lock")):
        if is_taken(lock):
            raise DarkroomError(f"{lock}: {lock.stem} works here; wait for it, or end it, and run darkroom gc again")


def _is_asked() -> bool:
    return is_on() and store_exists()


@contextmanager
def _project() -> Iterator[Any]:
    """The project as DVC opens it, a `dvc.repo.Repo`, closed at the end."""
    try:
        repo = opened()
    except Exception as error:  # whatever is wrong with settings that anybody may have edited
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DarkroomError(f"dvc does not open this project ({first}); see darkroom doctor") from None
    try:
        yield repo
    finally:
        repo.close()
