"""How folders of pictures are read: official splits, and files that are taken for pictures."""

from collections.abc import Iterable

from darkroom.core.errors import DarkroomError
from darkroom.data.images import MAX_BYTES, SUFFIXES
from darkroom.data.manifest import Files
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


def official_splits(pictures: Iterable[str]) -> dict[str, str | None]:
    """Picture -> its split, held-out ones first: official where every picture lies in a folder named after a split."""
    splits = {name: SPLIT_FOLDERS.get(name.split("/")[0].lower()) if "/" in name else None for name in pictures}
    if None in splits.values():
        return dict.fromkeys(splits)
    return dict(sorted(splits.items(), key=lambda item: SPLIT_ORDER.index(item[1] or "train")))


def pictures_among(files: Files) -> list[str]:
    """The names with a picture's suffix.

    Raises:
        DarkroomError: there is none.
    """
    pictures = [name for name in files.names if name.lower().endswith(SUFFIXES)]
    if not pictures:
        kinds = " ".join(SUFFIXES)
        raise DarkroomError(f"{files.root}: no pictures in this folder ({kinds}); check prepare_data.source.root")
    return pictures


def read_picture(files: Files, name: str) -> bytes | Skipped:
    """The file's bytes, verified; not of one too large to be a picture."""
    if files.size(name) > MAX_BYTES:
        return Skipped(name, f"larger than {MAX_BYTES >> 20} MiB")
    return files.read(name)
