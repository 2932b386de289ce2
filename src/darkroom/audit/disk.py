"""What lies on the disk and in DVC's cache, each file hashed once, several at a time."""

import json
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from darkroom.core.artifact import file_hash, folder_hash
from darkroom.core.dvc_settings import cache_root
from darkroom.core.progress import Progress

SILENT = 1.5  # seconds of hashing before a person is told how far it is
LOOK_EVERY = 0.25  # seconds
IGNORE = Path(".dvcignore")
FOLDER_MARK = ".dir"  # at the end of the hash of a folder


class Disk:
    """Contents of files and folders of the project; `expect` what will be asked for, and it is hashed meanwhile."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor()
        self._hashes: dict[tuple[int, int], Future[str]] = {}
        self._ignored = _patterns()
        self._watch = threading.Thread(target=self._show, name="show hashing", daemon=True)

    def expect(self, paths: Iterable[Path]) -> None:
        """Begin to hash all files of these files and folders."""
        for path in paths:
            for file in self._files(path):
                self._hash(file)

    def digest(self, path: Path) -> str | None:
        """The hash DVC gives `path` as it lies there; None where nothing does."""
        listing = self.listing(path)
        if listing is None:
            return None
        return folder_hash(listing) if path.is_dir() else listing[""]

    def listing(self, path: Path) -> dict[str, str] | None:
        """{relative name: md5} of a folder, {"": md5} of a file; None where nothing is."""
        if path.is_file():
            return {"": self._hash(path).result()}
        if not path.is_dir():
            return None
        return {file.relative_to(path).as_posix(): self._hash(file).result() for file in self._files(path)}

    def _files(self, path: Path) -> list[Path]:
        if path.is_file():
            return [path]
        found = (file for file in path.rglob("*") if file.is_file())
        return [file for file in found if not self._is_ignored(file.relative_to(path))]

    def _is_ignored(self, name: Path) -> bool:
        return any(fnmatch(part, pattern) for part in name.parts for pattern in self._ignored)

    def _hash(self, file: Path) -> Future[str]:
        at = file.stat()
        key = (at.st_dev, at.st_ino)
        if key not in self._hashes:
            self._hashes[key] = self._pool.submit(file_hash, file)
            with suppress(RuntimeError):  # it was started before
                self._watch.start()
        return self._hashes[key]

    def _show(self) -> None:
        """Say on stderr how many files are hashed, while they are and where that takes long."""
        with Progress(1, "audit: hashing", "file", after=SILENT) as bar:
            while True:
                futures = list(self._hashes.values())
                done, bar.total = sum(future.done() for future in futures), len(futures)
                bar.update(done - bar.done)
                if done == len(futures):
                    return
                time.sleep(LOOK_EVERY)


class Cache:
    """DVC's cache: objects by their hash."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.root = cache_root() / "files/md5"

    def place(self, digest: str) -> Path:
        """Where the object of this hash lies, or would."""
        return self.root / digest[:2] / digest[2:]

    def expect(self, digests: Iterable[str]) -> None:
        """Begin to hash these objects, and those of folders' files."""
        for digest in digests:
            files = (self.listing(digest) or {}).values() if digest.endswith(FOLDER_MARK) else [digest]
            self._disk.expect(place for file in files if (place := self.place(file)).is_file())

    def listing(self, digest: str) -> dict[str, str] | None:
        """As `Disk.listing`, of what the cache keeps under this hash; None where it keeps no such, or a broken list."""
        place = self.place(digest)
        if not place.is_file():
            return None
        if not digest.endswith(FOLDER_MARK):
            return {"": digest}
        try:
            return {entry["relpath"]: entry["md5"] for entry in json.loads(place.read_text(encoding="utf-8"))}
        except (ValueError, KeyError, TypeError):
            return None

    def lacks(self, digest: str) -> list[str]:
        """The hashes under `digest`, a folder's files included, of which no object is there."""
        return [one for one in self._objects(digest) if not self.place(one).is_file()]

    def corrupt(self, digest: str) -> list[str]:
        """The hashes under `digest`, a folder's files included, whose objects hold something else."""
        there = [one for one in self._objects(digest) if self.place(one).is_file()]
        return [one for one in there if self._found(one) != one]

    def _objects(self, digest: str) -> list[str]:
        return [digest, *((self.listing(digest) or {}).values() if digest.endswith(FOLDER_MARK) else ())]

    def _found(self, digest: str) -> str:
        found = self._disk.listing(self.place(digest)) or {"": ""}
        return found[""] + (FOLDER_MARK if digest.endswith(FOLDER_MARK) else "")


def _patterns() -> list[str]:
    """What .dvcignore leaves out by name; patterns with a slash are not understood and pass over nothing."""
    if not IGNORE.is_file():
        return []
    lines = (line.strip().rstrip("/") for line in IGNORE.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith(("#", "!")) and "/" not in line]
