"""Files from outside the project: where they lie, which they are, and the proof that they are still the same.

A manifest lists the files of a source: relative names, sizes, md5. It is committed, prepare_data depends on it, and
each file is compared with it as it is read. Where they lie is the machine's business: DARKROOM_DATA, default data/raw.
"""

import hashlib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from darkroom.core.artifact import read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import track

ROOT_VARIABLE = "DARKROOM_DATA"
DEFAULT_ROOT = Path("data/raw")
RESCAN = "if that is intended, run `darkroom data scan` and commit the manifest"


def data_root() -> Path:
    """The folder that holds the data sets of this machine."""
    return Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT)


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
            DarkroomError: there is none, or it is no manifest.
        """
        path = Path(path)
        if not path.exists():
            raise DarkroomError(f"{path}: no manifest of the source yet; run `darkroom data scan` and commit it")
        try:
            files = {name: Entry(int(e["size"]), str(e["md5"])) for name, e in read_json(path).items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise DarkroomError(f"{path}: not a manifest; make it again with `darkroom data scan`") from None
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
                raise DarkroomError(f"{self.path}: {len(which)} files are {what}, first {which[0]}; {RESCAN}")

    def check(self, name: str, found: Entry) -> None:
        """Raises DarkroomError unless the file is the one that was scanned."""
        expected = self.files[name]
        if found != expected:
            raise DarkroomError(
                f"{name}: has md5 {found.md5} ({found.size} bytes), but {self.path} says {expected.md5} "
                f"({expected.size} bytes); {RESCAN}"
            )


class Files:
    """The files of a source below its root that pass `wanted` by their suffix; read through here, they are verified.

    root: relative to `data_root()`, or absolute. names: instead of looking, exactly these.
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
        self._suffixes, self._given = suffixes, names

    @cached_property
    def names(self) -> list[str]:
        """Relative POSIX names, sorted; hidden files and folders are left out.

        Raises:
            DarkroomError: no such root, a file name that is not UTF-8, or not the files of the manifest.
        """
        if not self.root.is_dir():
            raise DarkroomError(
                f"data root {self.root}: no such folder; set {ROOT_VARIABLE} (default {DEFAULT_ROOT}) "
                "or prepare_data.source.root to where your data lie"
            )
        found = list(self._given) if self._given is not None else self._look()
        if self.manifest is not None:
            self.manifest.check_names(found)
        return found

    def _look(self) -> list[str]:
        found: list[str] = []
        visited: set[str] = set()  # links to folders are followed, but never in circles
        for folder, folders, files in os.walk(self.root, followlinks=True):
            here = os.path.realpath(folder)
            folders[:] = [] if here in visited else sorted(f for f in folders if not f.startswith("."))
            if here in visited:
                continue
            visited.add(here)
            inside = Path(folder).relative_to(self.root)
            found += [
                (inside / file).as_posix()
                for file in files
                if not file.startswith(".") and file.lower().endswith(self._suffixes)
            ]
        for name in found:
            if any("\ud800" <= letter <= "\udfff" for letter in name):
                raise DarkroomError(f"{self.root}: file name {name!a} is not UTF-8; rename it")
        return sorted(found)

    def open(self, name: str) -> io.BufferedReader:
        """The file, verified, at its beginning; it is hashed before anything is taken from it.

        Raises:
            DarkroomError: it cannot be read, or is not the file of the manifest.
        """
        try:
            file = (self.root / name).open("rb")
            if self.manifest is not None:
                digest = hashlib.file_digest(file, "md5")
                self.manifest.check(name, Entry(file.tell(), digest.hexdigest()))
                file.seek(0)
        except OSError as error:
            raise self._unreadable(name, error) from None
        return file

    def read(self, name: str) -> bytes:
        """The content of a file, verified. Raises DarkroomError as `open`."""
        try:
            content = (self.root / name).read_bytes()
        except OSError as error:
            raise self._unreadable(name, error) from None
        if self.manifest is not None:
            self.manifest.check(name, Entry(len(content), hashlib.md5(content).hexdigest()))
        return content

    def size(self, name: str) -> int:
        """Bytes. Raises DarkroomError where it cannot be known."""
        try:
            return (self.root / name).stat().st_size
        except OSError as error:
            raise self._unreadable(name, error) from None

    def _unreadable(self, name: str, error: OSError) -> DarkroomError:
        return DarkroomError(f"{self.root / name}: cannot be read ({error.strerror}); mend or remove it")


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
