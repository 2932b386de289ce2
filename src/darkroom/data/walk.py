"""The files below a folder that anybody may have filled."""

import os
from collections.abc import Iterator
from pathlib import Path

from darkroom.core.errors import DarkroomError
from darkroom.data.names import shown

Identity = tuple[int, int]  # of a folder: device and inode


def walk(root: Path) -> Iterator[str]:
    """Names relative to `root`, POSIX, a folder's own files before those of its folders; what is hidden is left out.

    Links to folders are followed, but each folder is entered once, under the name that comes first.

    Raises:
        DarkroomError: a folder that cannot be listed.
    """
    status = root.stat()
    entered: set[Identity] = set()
    waiting = [("", (status.st_dev, status.st_ino))]  # a list and no recursion: folders may lie thousands deep
    while waiting:
        inside, identity = waiting.pop()
        if identity in entered:
            continue
        entered.add(identity)
        here = f"{root}/{inside}"
        try:
            with os.scandir(here) as entries:
                found = sorted((e.name, _folder(e)) for e in entries if not e.name.startswith("."))
        except OSError as error:
            raise DarkroomError(
                f"{shown(here.rstrip('/'))}: cannot be listed ({error.strerror}); mend or remove it"
            ) from None
        yield from (inside + name for name, folder in found if folder is None)
        waiting += [(f"{inside}{name}/", folder) for name, folder in reversed(found) if folder is not None]


def _folder(entry: os.DirEntry[str]) -> Identity | None:
    """None of what is no folder. A link that leads nowhere, or back to itself, is a file: one that cannot be read.

    Raises:
        OSError: a folder that no path reaches.
    """
    try:
        if not entry.is_dir():
            return None
    except OSError:
        return None
    status = entry.stat()
    return status.st_dev, status.st_ino
