"""Files from outside the project: where they lie, which they are, and the proof that they are still the same.

A manifest lists the files of a source: relative names, sizes, md5. It is committed, prepare_data depends on it, and
each file is compared with it as it is read. Where they lie is the machine's business: DARKROOM_DATA, default data/raw.
"""

import hashlib
import io
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from darkroom.config.paths import MANIFESTS, RAW
from darkroom.core.artifact import read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import track
from darkroom.core.system_files import system_part
from darkroom.core.text import printable
from darkroom.data.walk import files_below

ROOT_VARIABLE = "DARKROOM_DATA"
AUTO = "auto"
RESCAN = "if that is intended, run `darkroom data scan` and commit the manifest"


def data_root() -> Path:
    """The folder that holds the data sets of this machine."""
    return Path(os.environ.get(ROOT_VARIABLE) or RAW)


def manifest_of(root: str, manifest: str | None) -> Path | None:
    """The file that prepare_data.source.manifest means; "auto": data/manifests/ROOT.json, / of the root written as -.

    Of an absolute root, which means something on one machine alone, the last part is taken.
    """
    if manifest != AUTO:
        return None if manifest is None else Path(manifest)
    path = Path(root)
    names = [path.name] if path.is_absolute() else [part for part in path.parts if part != ".."]
    return MANIFESTS / f"{'-'.join(names) or 'data'}.json"


@dataclass(frozen=True)
class Entry:
    """What a file must be: size in bytes, md5 in hexadecimal digits."""

    size: int
    md5: str


@dataclass(frozen=True)
class Manifest:
    """The files of a source by their POSIX names relative to its root; `path` is for messages."""

    path: Path
    files: dict[str, Entry]

    @classmethod
    def load(cls, path: Path | str) -> "Manifest":
        """Read data/manifests/NAME.json.

        Raises:
            DarkroomError: there is none, or it is not a manifest.
        """
        path = Path(path)
        try:
            if not path.exists():
                raise DarkroomError(
                    f"{printable(path)}: no manifest of the source yet; run `darkroom data scan` and commit it"
                )
            files = {name: _entry(value) for name, value in read_json(path).items()}
        except OSError as error:
            raise DarkroomError(f"{printable(path)}: cannot be read ({error.strerror}); name another file") from None
        except (AttributeError, KeyError, RecursionError, TypeError):
            raise DarkroomError(f"{printable(path)}: not a manifest; make it again with `darkroom data scan`") from None
        return cls(path, files)

    def write(self) -> None:
        """Write it to its path, sorted."""
        write_json(self.path, {name: {"size": e.size, "md5": e.md5} for name, e in self.files.items()})

    def check_names(self, names: Iterable[str]) -> None:
        """Raises DarkroomError unless exactly the files of the manifest are there."""
        found = set(names)
        missing, unknown = sorted(self.files.keys() - found), sorted(found - self.files.keys())
        for which, what in ((missing, "listed there but missing"), (unknown, "there but not listed")):
            if which:
                raise DarkroomError(
                    f"{self.path}: {len(which)} files are {what}, first {printable(which[0])}; {RESCAN}"
                )

    def check(self, name: str, found: Entry) -> None:
        """Raises DarkroomError unless the file is the one that was scanned."""
        _check(name, found, self.files[name], self.path)


def _check(name: str, found: Entry, expected: Entry, manifest: Path) -> None:
    if found != expected:
        raise DarkroomError(
            f"{printable(name)}: has md5 {found.md5} ({found.size} bytes), but {manifest} says {expected.md5} "
            f"({expected.size} bytes); {RESCAN}"
        )


def _entry(value: Any) -> Entry:
    size, md5 = value["size"], value["md5"]
    if type(size) is not int or not isinstance(md5, str):
        raise TypeError
    return Entry(size, md5)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source that whoever needs it reads, in any process that sees the same folders.

    name: relative to `root`. expected: what the manifest at `manifest` says of it; None: nothing.
    state: size in bytes, and the times of its last changes in nanoseconds: of another content they differ.
    """

    root: Path
    name: str
    expected: Entry | None
    manifest: Path | None
    state: tuple[int, int, int]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.state[0]

    def read(self) -> bytes:
        """The content, verified.

        Raises:
            DarkroomError: it cannot be read, or is not the file of the manifest.
        """
        try:
            content = (self.root / self.name).read_bytes()
        except OSError as error:
            raise _unreadable(self.root, self.name, error) from None
        if self.expected is not None and self.manifest is not None:
            _check(self.name, Entry(len(content), hashlib.md5(content).hexdigest()), self.expected, self.manifest)
        return content


def _unreadable(root: Path, name: str, error: OSError) -> DarkroomError:
    return DarkroomError(f"{printable(root / name)}: cannot be read ({error.strerror}); fix or remove it")


class Files:
    """The files of a source below its root that pass `wanted` by their suffix; read through here, they are verified.

    root: relative to `data_root()`, or absolute. names: instead of looking, exactly these.
    left_out: once `names` are known, how many such files lie in what is hidden or a system's own (see system_files).
    """

    def __init__(
        self,
        root: str,
        manifest: Manifest | None = None,
        suffixes: tuple[str, ...] = (),
        names: tuple[str, ...] | None = None,
    ) -> None:
        self.root = data_root() / root
        self.manifest = manifest
        self._suffixes, self._listed = suffixes, names
        self.left_out = Counter[str]()

    @cached_property
    def names(self) -> list[str]:
        """Relative POSIX names, sorted; what is hidden or a system's own is left out.

        Raises:
            DarkroomError: no such root, a file name that is not UTF-8, or not the files of the manifest.
        """
        if not self._is_there(Path.is_dir, self.root):
            raise DarkroomError(
                f"data root {printable(self.root)}: no such folder; set {ROOT_VARIABLE} (default {RAW}) "
                "or prepare_data.source.root to where your data lie"
            )
        found = list(self._listed) if self._listed is not None else self._look()
        if self.manifest is not None:
            self.manifest.check_names(found)
        return found

    def _look(self) -> list[str]:
        found = [name for name in files_below(self.root, self._leave_out) if name.lower().endswith(self._suffixes)]
        for name in found:
            if any("\ud800" <= letter <= "\udfff" for letter in name):
                raise DarkroomError(f"{printable(self.root)}: file name {printable(name)} is not UTF-8; rename it")
        return sorted(found)

    def _leave_out(self, name: str) -> None:
        if name.lower().endswith(self._suffixes):
            self.left_out[system_part(name) or name] += 1

    def has(self, name: str) -> bool:
        """Is there a file of this name?"""
        return self._is_there(Path.is_file, self.root / name)

    def open(self, name: str) -> io.BufferedReader:
        """The file, verified, at its beginning; it is hashed before anything is taken from it.

        Raises:
            DarkroomError: it cannot be read, or is not the file of the manifest.
        """
        self.file(name)
        try:
            file = (self.root / name).open("rb")
            if self.manifest is not None:
                digest = hashlib.file_digest(file, "md5")
                self.manifest.check(name, Entry(file.tell(), digest.hexdigest()))
                file.seek(0)
        except OSError as error:
            raise _unreadable(self.root, name, error) from None
        return file

    def file(self, name: str) -> SourceFile:
        """A file, to be read later.

        Raises:
            DarkroomError: it is not there, or not a file: a pipe would be waited for, and some devices never end.
        """
        path = self.root / name
        try:
            found = path.stat()
        except OSError as error:
            raise _unreadable(self.root, name, error) from None
        if not stat.S_ISREG(found.st_mode):
            raise DarkroomError(f"{printable(path)}: is not a file but a folder, pipe, socket or device; remove it")
        expected = None if self.manifest is None else self.manifest.files[name]
        manifest = None if self.manifest is None else self.manifest.path
        return SourceFile(self.root, name, expected, manifest, (found.st_size, found.st_mtime_ns, found.st_ctime_ns))

    def read(self, name: str) -> bytes:
        """The content of a file, verified. Raises DarkroomError as `file` and `SourceFile.read`."""
        return self.file(name).read()

    def size(self, name: str) -> int:
        """Bytes. Raises DarkroomError as `file`."""
        return self.file(name).size

    @staticmethod
    def _is_there(kind: Callable[[Path], bool], path: Path) -> bool:
        try:
            return kind(path)
        except OSError:  # a name that is too long
            return False


def scan(files: Files, path: Path | str) -> Manifest:
    """Hash every file of a source that was opened without a manifest: the one to be written to `path`.

    Raises:
        DarkroomError: no such root, or a file that cannot be read.
    """
    entries = {}
    for name in track(files.names, len(files.names), "scan", "file"):
        with files.open(name) as file:
            digest = hashlib.file_digest(file, "md5")
            entries[name] = Entry(file.tell(), digest.hexdigest())
    return Manifest(Path(path), entries)
