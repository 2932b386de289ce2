"""A trial: folders filled with hostile files, a watchdog, the books of what became of each file, and refusals."""

import io
import posixpath
import signal
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pyarrow.parquet as pq
import pytest

from darkroom.core.errors import DarkroomError
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Info
from darkroom.data.sources.base import Reader
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.data.sources.image_folder import ImageFolder
from darkroom.data.sources.webdataset import WebDataset
from tests.support.settings import preparation

MAKERS: dict[str, Callable[[str], Reader]] = {
    "image_folder": lambda root: ImageFolder(root, "a {label}"),
    "captioned_folder": CaptionedFolder,
    "webdataset": WebDataset,
}


class Hang(BaseException):
    """No Exception, so that nothing on its way takes it for a damaged file."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Ends what lasts longer."""

    def bark(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Books:
    """What became of every file: kept (path -> how often) or listed (path, reason)."""

    info: Info
    kept: Counter[str]
    listed: list[tuple[str, str]]


def tar(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def fill(folder: Path, kind: str, pictures: Mapping[str, bytes], captions: Mapping[str, bytes]) -> None:
    """Write pictures with their captions (by the pictures' names; without one, any) into a data set of a kind.

    In the one shard of a webdataset picture i and its caption lie in a folder i.
    """
    files: dict[str, bytes] = {}
    for i, (name, content) in enumerate(pictures.items()):
        caption = captions.get(name, b"a thing")
        if kind == "image_folder":
            files[f"things/{name}"] = content
        elif kind == "captioned_folder":
            files |= {name: content, f"{posixpath.splitext(name)[0]}.txt": caption}
        else:
            files |= {f"{i}/{name}": content, f"{i}/{name.partition('.')[0]}.txt": caption}
    if kind == "webdataset":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "x.tar").write_bytes(tar(files))
    else:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def outcome(kind: str, out: Path, **changes: object) -> Books:
    """The data set "set" through prepare, with the bookkeeping of what came out."""
    usual = {"image_size": 8, "validation_fraction": 0.2, "test_fraction": 0.2, "max_bad_fraction": 1.0}
    how = preparation(**(usual | changes))
    info = prepare(MAKERS[kind]("set"), out, how)
    kept: Counter[str] = Counter()
    for split, rows in info.splits.items():
        images = pq.read_table(out / split, columns=["image"])["image"].to_pylist()
        assert len(images) == rows
        kept.update(image["path"] for image in images)
    listed = [(entry["file"], entry["reason"]) for entry in (*info.skipped, *info.strays)]
    assert all(file.isprintable() and reason.isprintable() and reason for file, reason in listed)
    return Books(info, kept, listed)


def check(error: DarkroomError, *beginnings: str) -> str:
    """Its message: one line that any terminal can print, with one of these beginnings."""
    message = str(error)
    assert message.isprintable(), message
    assert len(message) < 2000
    assert message.startswith(beginnings or "")
    return message


def refusal(act: Callable[[], object], seconds: float = 5) -> str:
    """The message of the DarkroomError that `act` ends with."""
    with within(seconds), pytest.raises(DarkroomError) as error:
        act()
    return check(error.value)
