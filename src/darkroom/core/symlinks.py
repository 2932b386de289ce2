"""Model folders name no files but their own: no link in one leads out of it."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from darkroom.core.errors import DarkroomError

# Where files are named by their content, so that a link tells nobody anything: Hugging Face's cache, DVC's cache.
STORES = re.compile(r".*/(blobs/([0-9a-f]{40}|[0-9a-f]{64})|files/md5/[0-9a-f]{2}/[0-9a-f]{30})")


def check_inside(folder: Path, names: Iterable[str] | None = None) -> None:
    """Refuse a folder with a link to a file or folder outside of it, which would be read, or handed on, as part of it.

    Args:
        names: look at these files of the folder alone; at all that is in it and below it where none are given.
    """
    root = Path(os.path.realpath(folder))
    for path in folder.rglob("*") if names is None else (folder / name for name in names):
        if path.is_symlink():
            end = Path(os.path.realpath(path))  # unlike resolve(), also of links in a circle
            if not end.is_relative_to(root) and not STORES.fullmatch(end.as_posix()):
                raise DarkroomError(
                    f"{path}: is a link that leads out of {folder}, and is not followed; "
                    "put the file itself there, or fetch the model again"
                )
