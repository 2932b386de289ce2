"""The files below a folder that anybody may have filled."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from darkroom.core.errors import DarkroomError
from darkroom.core.system_files import is_system
from darkroom.core.text import printable

Identity = tuple[int, int]  # of a folder: device and inode


def files_below(root: Path, left_out: Callable[[str], None] = lambda name: None) -> Iterator[str]:
    """Names relative to `root`, POSIX, a folder's own files before those of its folders. What is hidden or a system's
    own is left out; `left_out` is told of each file of it that can be seen.

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
                everything = sorted(entries, key=lambda entry: entry.name)
            found = [(e.name, _folder(e)) for e in everything if not is_system(e.name)]
        except OSError as error:
            raise DarkroomError(
                f"{printable(here.rstrip('/'))}: cannot be listed ({error.strerror}); fix or remove it"
            ) from None
        for entry in everything:
            if is_system(entry.name):
                _tell(inside, entry, left_out)
        yield from (inside + name for name, folder in found if folder is None)
        waiting += [(f"{inside}{name}/", folder) for name, folder in reversed(found) if folder is not None]


def _tell(inside: str, entry: os.DirEntry[str], left_out: Callable[[str], None]) -> None:
    """Of the files in what is left out; links are not followed, and a closed folder is not a loss."""
    waiting = [(inside + entry.name, entry)]
    while waiting:
        name, entry = waiting.pop()
        try:
            if not entry.is_dir(follow_symlinks=False):
                left_out(name)
                continue
            with os.scandir(entry) as entries:
                waiting += [(f"{name}/{e.name}", e) for e in entries]
        except OSError:
            continue


def _folder(entry: os.DirEntry[str]) -> Identity | None:
    """None for what is not a folder. A link that leads nowhere, or back to itself, is a file: one that cannot be read.

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
