"""How folders of pictures are read: official splits, and files that are taken for pictures."""

from collections.abc import Iterable

from darkroom.core.errors import DarkroomError
from darkroom.data.images import MAX_BYTES, SUFFIXES, UNREAD
from darkroom.data.manifest import Files
from darkroom.data.names import shown
from darkroom.data.sources.base import SPLIT_ORDER, Skipped

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


STRAY = "lies outside the folders of the splits"


def official_splits(pictures: Iterable[str]) -> dict[str, str | None]:
    """Picture -> its split, held-out ones first: official where every picture lies in a folder named after a split.

    Beside two such folders or more, loose pictures are left out of the result: a preview forgotten among them does not
    make test pictures training pictures.
    """
    folders = {name: name.split("/")[0].lower() if "/" in name else None for name in pictures}
    there = set(folders.values())
    official = there - {None} <= SPLIT_FOLDERS.keys() and (None not in there or len(there) > 2)
    if not official:
        return dict.fromkeys(folders)
    splits = {name: SPLIT_FOLDERS[folder] for name, folder in folders.items() if folder is not None}
    return dict(sorted(splits.items(), key=lambda item: SPLIT_ORDER.index(item[1])))


def pictures_among(files: Files) -> list[str]:
    """The names with a picture's suffix, of a format that is not read too.

    Raises:
        DarkroomError: there is none of a format that is.
    """
    if not any(name.lower().endswith(SUFFIXES) for name in files.names):
        kinds = " ".join(SUFFIXES)
        raise DarkroomError(
            f"{shown(files.root)}: no pictures in this folder ({kinds}); check prepare_data.source.root"
        )
    return [name for name in files.names if name.lower().endswith((*SUFFIXES, *UNREAD))]


def read_picture(files: Files, name: str) -> bytes | Skipped:
    """The file's bytes, verified; not of one too large to be a picture, or of a format that is not read."""
    if name.lower().endswith(UNREAD):
        return Skipped(name, "a picture of a format that is not read; save it as PNG or JPEG")
    if files.size(name) > MAX_BYTES:
        return Skipped(name, f"larger than {MAX_BYTES >> 20} MiB")
    return files.read(name)
