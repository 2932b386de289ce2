"""A folder with one folder of pictures per class, optionally below or above train/, validation/, test/; or just
pictures."""

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

from darkroom.core.text import printable
from darkroom.data.head import Head
from darkroom.data.images import SUFFIXES, UNREAD
from darkroom.data.manifest import Files, Manifest
from darkroom.data.sources.base import Description, OutsideSource, Sample, Skipped
from darkroom.data.sources.captions import from_class
from darkroom.data.sources.layout import picture_file, pictures_among
from darkroom.data.sources.splits import STRAY, of_pictures


class ImageFolderSource(OutsideSource):
    """Pictures in one folder per class, or just pictures."""

    labelled = True
    suffixes = (*SUFFIXES, *UNREAD)

    kind: Literal["image_folder"]
    """Folders are classes, optionally below or above train/, validation/, test/."""

    caption: str
    """Of each picture in a class folder; {label} in it is the class, with _ read as a space."""

    def reader(self, manifest: Manifest | None) -> "ImageFolder":
        """See `OutsideSource.reader`."""
        return ImageFolder(self.root, self.caption, manifest)


class ImageFolder:
    """Classes are the folders' names, sorted. Without class folders the pictures have neither label nor caption.

    root: relative to the data root, or absolute. caption: template with {label}, the class with _ read as a space.
    """

    def __init__(self, root: str, caption: str, manifest: Manifest | None = None) -> None:
        self.files = Files(root, manifest, ImageFolderSource.suffixes)
        self.caption = caption

    @cached_property
    def _pictures(self) -> dict[str, tuple[str | None, str | None]]:
        """Picture -> (split, class)."""
        pictures: dict[str, tuple[str | None, str | None]] = {}
        splits, depth = of_pictures(printable(self.files.root), pictures_among(self.files), classes=True)
        for name, split in splits.items():
            folders = name.split("/")[:-1]
            if depth is not None:
                folders = folders[depth + 1 :] or folders[:depth]
            pictures[name] = (split, folders[0] if folders else None)
        return pictures

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Sorted class names; empty without class folders."""
        return tuple(sorted({label for _, label in self._pictures.values() if label is not None}))

    @property
    def description(self) -> Description:
        heads = (Head("label", self.classes),) if self.classes else ()
        size = len(pictures_among(self.files))
        return Description(
            "image_folder", size, heads, bool(self.classes), set_aside=dict(sorted(self.files.left_out.items()))
        )

    def __iter__(self) -> Iterator[Sample | Skipped]:
        yield from (Skipped(name, STRAY) for name in pictures_among(self.files) if name not in self._pictures)
        for name, (split, label) in self._pictures.items():
            image = picture_file(self.files, name)
            if isinstance(image, Skipped):
                yield image
            elif label is not None:
                caption = from_class(self.caption, " ".join(label.replace("_", " ").split()))
                yield Sample(image, name, caption, split, (self.classes.index(label),), (True,))
            elif self.classes:
                yield Skipped(name, "lies outside the class folders")
            else:
                yield Sample(image, name, split=split)
