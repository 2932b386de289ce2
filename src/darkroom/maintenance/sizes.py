"""How much of a disk files take, as `du` counts it."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

BLOCK = 512  # bytes, the unit of st_blocks on every system


def size_of(paths: Iterable[Path]) -> int:
    """Bytes that are free again once these files and folders, with all in them, are gone.

    A file that has names elsewhere too frees nothing.
    """
    names: dict[tuple[int, int], int] = {}
    found: dict[tuple[int, int], os.stat_result] = {}
    for path in paths:
        for one in _entries(path):
            key = (one.st_dev, one.st_ino)
            names[key] = names.get(key, 0) + 1
            found[key] = one
    return sum(
        one.st_blocks * BLOCK for key, one in found.items() if stat.S_ISDIR(one.st_mode) or one.st_nlink <= names[key]
    )


def _entries(path: Path) -> Iterator[os.stat_result]:
    try:
        here = path.lstat()
    except OSError:
        return
    yield here
    if path.is_dir() and not path.is_symlink():
        for below in path.iterdir():
            yield from _entries(below)
