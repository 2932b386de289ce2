"""The part of `darkroom keep` that is DVC's, a process of its own: dvc commit --force, without DVC's run cache.

In the run cache the outputs would stand for what the present code makes, and a later dvc repro, of whichever branch,
would take them from there and say nothing.
"""

import sys
from typing import Any

from darkroom.config.lock_file import LockedStage, read_lock
from darkroom.config.stage_spec import LOCK
from darkroom.core.errors import DarkroomError
from darkroom.project.kept import Kept


def commit(stage: str) -> None:
    """Have dvc.lock say what its note says; as it was where that fails. DVC's lock keeps others from writing it.

    Raises:
        DarkroomError: there is no note, or DVC has other outputs or code than it names. Whatever DVC raises.
    """
    from dvc.repo import Repo

    with Repo(".") as repo, repo.lock:
        before, locked = LOCK.read_bytes(), read_lock().get(stage)
        try:
            _dump(repo, stage)
            _check(Kept.read(stage), locked, read_lock().get(stage))
        except BaseException:
            if LOCK.read_bytes() != before:
                LOCK.write_bytes(before)
            raise


def _dump(repo: Any, name: str) -> None:
    stage = repo.stage.load_one(name=name)
    stage.save(run_cache=False)
    stage.commit()
    stage.dump(update_pipeline=False)


def _check(note: Kept | None, before: LockedStage | None, now: LockedStage | None) -> None:
    if note is None or before is None or now is None or dict(now.code) != note.code or now.outputs != before.outputs:
        raise DarkroomError("its code or its outputs changed meanwhile")


if __name__ == "__main__":
    from dvc.exceptions import DvcException
    from dvc.lock import LockError

    try:
        commit(sys.argv[1])
    except (DarkroomError, DvcException, LockError, OSError) as error:
        sys.exit(str(error))
