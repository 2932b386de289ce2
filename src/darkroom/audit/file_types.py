"""Which kinds of things lie at a path. Files and folders are looked into; links, pipes, sockets and devices are named,
and never followed, opened or waited for."""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from darkroom.core.system_files import left_by_system

WORDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}


@dataclass
class Scan:
    """What lies at a path.

    folder: whether it is one. files: by POSIX name relative to it, "" for a file itself; they include what systems left
    there and DVC counts. foreign: what is neither file nor folder, or a file above the path, with its kind in
    words. hidden: what .dvcignore keeps from DVC. left: what file managers and systems left there, by whether
    DVC counts it: {path: counted}.
    """

    folder: bool = False
    files: dict[str, Path] = field(default_factory=dict)
    foreign: dict[Path, str] = field(default_factory=dict)
    hidden: list[Path] = field(default_factory=list)
    left: dict[Path, bool] = field(default_factory=dict)

    @property
    def counted(self) -> dict[str, Path]:
        """The files without those that a system left."""
        return {name: file for name, file in self.files.items() if not (name and left_by_system(name.split("/")))}


def kind(path: Path) -> str | None:
    """What lies at a path, in words; None where nothing does."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(mode):
        return f"a link to {path.readlink()}"
    return WORDS.get(stat.S_IFMT(mode), "of an unknown kind")


def foreign(path: Path, wanted: str = "a file") -> str | None:
    """The kind of what lies at a path, unless it is the one wanted or nothing."""
    found = kind(path)
    return found if found not in (None, wanted) else None


def scan(path: Path, ignored: Sequence[str], kept: Callable[[Path], bool]) -> Scan | None:
    """Look at a path below the project; None where nothing is.

    ignored: patterns of names that DVC does not look at. kept: whether a link is known, as those are that DVC makes.
    """
    for above in reversed(path.parents):
        if above.parts and (odd := foreign(above, "a folder")) and not kept(above):
            return Scan(foreign={above: odd})
    found = kind(path)
    if found is None:
        return None
    if found.startswith("a link") and kept(path):
        found = "a folder" if path.is_dir() else "a file"
    if found == "a folder":
        looked = Scan(folder=True)
        _scan_folder(path, "", ignored, kept, looked)
        return looked
    if found == "a file":
        return Scan(files={"": path})
    return Scan(foreign={path: found})


def _scan_folder(folder: Path, prefix: str, ignored: Sequence[str], kept: Callable[[Path], bool], found: Scan) -> None:
    with os.scandir(folder) as listed:
        entries = sorted(listed, key=lambda entry: entry.name)
    for entry in entries:
        name, path = f"{prefix}{entry.name}", folder / entry.name
        unseen = any(fnmatch(entry.name, pattern) for pattern in ignored)
        if left_by_system([entry.name]):
            found.left[path] = not unseen
        elif unseen:
            found.hidden.append(path)
        if unseen:
            continue
        if entry.is_dir(follow_symlinks=False):
            _scan_folder(path, f"{name}/", ignored, kept, found)
        elif entry.is_file(follow_symlinks=False) or (entry.is_symlink() and kept(path)):
            found.files[name] = path
        else:
            found.foreign[path] = kind(path) or "gone"
