"""What lies on the disk and in DVC's cache, each file hashed once, several at a time."""

import json
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from darkroom.audit.file_types import Scan, foreign, kind, scan
from darkroom.core.artifact import file_hash, folder_hash
from darkroom.core.dvc_settings import cache_root
from darkroom.core.progress import Progress
from darkroom.tracking.repository import git_text_or_none

SILENT = 1.5  # seconds of hashing before progress is shown
LOOK_EVERY = 0.25  # seconds
IGNORE = Path(".dvcignore")
OBJECTS = "files/md5"  # in DVC's cache
GIT_LINK = "120000 "  # the mode of a link in git's trees
FOLDER_MARK = ".dir"  # at the end of the hash of a folder


class Disk:
    """Contents of files and folders of the project; `expect` what will be asked for, and it is hashed meanwhile.

    What is neither file nor folder counts as not there, and nothing is read through it: `scan` names it.
    """

    def __init__(self, outputs: Iterable[Path] = ()) -> None:
        """outputs: of stages; no link stands in their way, not even one that git keeps."""
        self._outputs = list(outputs)
        self._pool = ThreadPoolExecutor()
        self._hashes: dict[tuple[int, int], Future[str]] = {}
        self._scans: dict[Path, Scan | None] = {}
        self._ignored = _patterns()
        self._objects = os.path.realpath(cache_root() / OBJECTS)
        self._watch = threading.Thread(target=self._show, name="show hashing", daemon=True)

    def scan(self, path: Path) -> Scan | None:
        """Which kinds of things lie at a path; None where nothing does."""
        if path not in self._scans:
            self._scans[path] = scan(path, self._ignored, self._is_kept)
        return self._scans[path]

    def expect(self, paths: Iterable[Path]) -> None:
        """Begin to hash all files of these files and folders."""
        for path in paths:
            if found := self.scan(path):
                for file in found.files.values():
                    self._hash(file)

    def expect_files(self, files: Iterable[Path]) -> None:
        for file in files:
            if file.is_file():
                self._hash(file)

    def digest(self, path: Path, expected: str = "") -> str | None:
        """The hash DVC gives `path` as it lies there; None where nothing does.

        Where what a system left in a folder (.DS_Store, …) is all that parts it from the expected one, that one.
        """
        found, listing = self.scan(path), self.listing(path)
        if found is None or listing is None:
            return None
        if not found.folder:
            return listing[""]
        full = folder_hash(listing)
        if expected and full != expected and any(found.left.values()):
            counted = folder_hash({name: listing[name] for name in found.counted})
            return counted if counted == expected else full
        return full

    def listing(self, path: Path) -> dict[str, str] | None:
        """{relative name: md5} of a folder, {"": md5} of a file; None where neither is."""
        found = self.scan(path)
        if found is None or not (found.folder or found.files):
            return None
        return {name: self._hash(file).result() for name, file in found.files.items()}

    def of_file(self, path: Path) -> str | None:
        """The md5 of a file that may lie anywhere, also behind links; None where no file is."""
        return self._hash(path).result() if path.is_file() else None

    def _is_kept(self, link: Path) -> bool:
        """Whether a link is one that DVC made, to an object of its cache, as cache.type says; or one that git keeps."""
        end = os.path.realpath(link)
        if end.startswith(self._objects + os.sep) and Path(end).is_file():
            return True
        apart = not any(link == out or link in out.parents or out in link.parents for out in self._outputs)
        return apart and (git_text_or_none("ls-tree", "HEAD", "--", str(link)) or "").startswith(GIT_LINK)

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
        self.root = cache_root() / OBJECTS

    def object_path(self, digest: str) -> Path:
        """Where the object of this hash lies, or would."""
        return self.root / digest[:2] / digest[2:]

    def expect(self, digests: Iterable[str]) -> None:
        """Begin to hash these objects, and those of folders' files."""
        for digest in digests:
            files = (self.listing(digest) or {}).values() if digest.endswith(FOLDER_MARK) else [digest]
            self._disk.expect_files(map(self.object_path, files))

    def listing(self, digest: str) -> dict[str, str] | None:
        """As `Disk.listing`, of what the cache keeps under this hash; None where it keeps no such, or a broken list."""
        object_path = self.object_path(digest)
        if not object_path.is_file():
            return None
        if not digest.endswith(FOLDER_MARK):
            return {"": digest}
        try:
            return {entry["relpath"]: entry["md5"] for entry in json.loads(object_path.read_text(encoding="utf-8"))}
        except (ValueError, KeyError, TypeError):
            return None

    def lacks(self, digest: str) -> list[str]:
        """The hashes under `digest`, a folder's files included, of which no object is there."""
        return [one for one in self._under(digest) if kind(self.object_path(one)) is None]

    def corrupt(self, digest: str) -> dict[str, str]:
        """The hashes under `digest`, a folder's files included, whose objects are something else: what, in words."""
        found = {}
        for one in self._under(digest):
            object_path = self.object_path(one)
            if odd := foreign(object_path.parent, "a folder") or foreign(object_path):
                found[one] = f"is {odd}"
            elif kind(object_path) and self._found(one) != one:
                found[one] = "does not hold what its name says"
        return found

    def _under(self, digest: str) -> list[str]:
        return [digest, *((self.listing(digest) or {}).values() if digest.endswith(FOLDER_MARK) else ())]

    def _found(self, digest: str) -> str:
        return (self._disk.of_file(self.object_path(digest)) or "") + (
            FOLDER_MARK if digest.endswith(FOLDER_MARK) else ""
        )


def _patterns() -> list[str]:
    """What .dvcignore leaves out by name; patterns with a slash are not understood and pass over nothing."""
    if not IGNORE.is_file():
        return []
    lines = (line.strip().rstrip("/") for line in IGNORE.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith(("#", "!")) and "/" not in line]
