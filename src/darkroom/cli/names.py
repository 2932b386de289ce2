"""The names of the files that a command will write, checked before it starts."""

import os
from collections.abc import Iterable
from pathlib import Path

from darkroom.core.artifact import unfinished
from darkroom.core.errors import DarkroomError
from darkroom.core.text import check_text

OTHERWISE = {"PC_NAME_MAX": 255, "PC_PATH_MAX": 4096}  # bytes, where the system does not say


def check_names(option: str, paths: Iterable[Path]) -> None:
    """Refuse paths of which one could not be written; `option` is what they come from.

    Raises:
        DarkroomError: names the first of them.
    """
    for path in paths:
        said = f"{option} = {shortened(check_text(str(path), option))}"
        if os.path.isdir(path):  # noqa: PTH112 - Path's own raises where the name is too long to be looked up
            raise DarkroomError(f"{said}: is a folder; give another name")
        there = next(above for above in path.parents if os.path.exists(above))  # noqa: PTH110
        if not there.is_dir():
            raise DarkroomError(f"{said}: {there} is a file, not a folder; give another path")
        if not os.access(there, os.W_OK | os.X_OK):
            raise DarkroomError(f"{said}: {there} may not be written to; give another path")
        new = path.parents[: list(path.parents).index(there)]
        for above in new:
            if os.path.islink(above):  # noqa: PTH114
                raise DarkroomError(f"{said}: {above} is a broken link; give another path")
        most = _most(there, "PC_NAME_MAX")
        for name in (unfinished(path).name, *(above.name for above in new)):
            if (size := len(os.fsencode(name))) > most:
                raise DarkroomError(
                    f"{said}: needs a name of {size} bytes on the way, and {there} takes {most}; give a shorter name"
                )
        if len(os.fsencode(unfinished(path))) >= (most := _most(there, "PC_PATH_MAX")):
            raise DarkroomError(f"{said}: is longer than the {most} bytes a path may have; give another path")


def shortened(text: str, most: int = 100) -> str:
    """A long name, its middle left out."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"


def _most(folder: Path, which: str) -> int:
    """How many bytes of a name or path the file system of `folder` takes."""
    try:
        found = os.pathconf(folder, which)
    except (AttributeError, ValueError, OSError):  # not on Windows; not everywhere known
        return OTHERWISE[which]
    return found if found > 0 else OTHERWISE[which]
