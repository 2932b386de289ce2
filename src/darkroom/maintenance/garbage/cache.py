"""Objects in DVC's cache that nothing refers to. DVC says what a commit needs, its lineage what a version needs."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from darkroom.audit.disk import FOLDER_MARK, OBJECTS, Cache, Disk
from darkroom.config.stage_spec import stage_specs
from darkroom.core.dvc_settings import cache_root
from darkroom.core.errors import DarkroomError
from darkroom.maintenance.garbage.item import Item
from darkroom.maintenance.garbage.references import References
from darkroom.maintenance.sizes import BLOCK, size_of

KIND = "DVC's cache"
NAME = re.compile(r"[0-9a-f]{30}(\.dir)?")


def why_not_swept() -> str:
    """Why nothing may go from the cache, in words; empty where it may: it lies in the project, which alone uses it."""
    root = cache_root()
    if root.resolve().is_relative_to(Path.cwd().resolve()):
        return ""
    return (
        f"{root}: lies outside the project, and others may use it: nothing is removed there; dvc gc --workspace "
        "--all-branches --all-tags --projects OTHER… keeps what all the projects that you name need"
    )


def unreferenced_objects(repo: Any, kept: References, experiments: bool) -> list[Item]:
    """What may go from the cache, as one item; nothing where all is referred to.

    Args:
        repo: the project, a `dvc.repo.Repo`.

    Raises:
        DarkroomError: DVC cannot read what some commit needs: then nothing may go.
    """
    needed = _by_dvc(repo, kept, experiments) | set(_by_versions(kept)) | set(_linked())
    root = cache_root() / OBJECTS
    found = [path for path in root.glob("[0-9a-f][0-9a-f]/*") if NAME.fullmatch(path.name)]
    gone = [path for path in found if f"{path.parent.name}{path.name}" not in needed]
    if not gone:
        return []
    paths = tuple(gone)
    emptied = {path.parent for path in gone} - {path.parent for path in found if path not in set(gone)}
    size = size_of(paths) + sum(folder.lstat().st_blocks * BLOCK for folder in emptied)
    return [Item(KIND, f"{len(gone)} of {len(found)} objects", paths, size)]


def _by_dvc(repo: Any, kept: References, experiments: bool) -> set[str]:
    """The hashes that the working tree and the commits need, as `dvc gc --workspace --all-branches --all-tags` keeps
    them; that knows no remote branches and no HEAD apart from branches, so commits are given.

    force: of a folder whose listing is not in the cache, nothing could be checked out anyway.
    """
    from dvc.exceptions import DvcException

    try:
        found = repo.used_objs(revs=list(kept.commits) or None, all_experiments=experiments, force=True)
    except DvcException as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        why = f" ({error.__cause__})" if error.__cause__ else ""
        raise DarkroomError(
            f"DVC cannot tell what is needed there: {first}{' '.join(why.split())}; nothing is removed: delete that "
            "tag or branch, or correct its dvc.yaml"
        ) from None
    return {str(one.value) for objects in found.values() for one in objects}


def _by_versions(kept: References) -> Iterator[str]:
    """The hashes of all outputs that are referred to, with those of folders' files."""
    cache = Cache(Disk())
    for digest in {digest for _, digest in kept.outputs}:
        yield digest
        if digest.endswith(FOLDER_MARK):
            yield from (cache.listing(digest) or {}).values()


def _linked() -> Iterator[str]:
    """The hashes of objects that files of the working tree are links to, as cache.type may have it."""
    root = os.path.realpath(cache_root() / OBJECTS)
    for output in (path for spec in stage_specs().values() for path in spec.outputs):
        for path in (output, *(output.rglob("*") if output.is_dir() else ())):
            if path.is_symlink() and (end := os.path.realpath(path)).startswith(root + os.sep):
                yield Path(end).parent.name + Path(end).name
