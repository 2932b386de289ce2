"""What every source is: keys of params.yaml, and a reader of samples and, beside them, of what it had to skip."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

from PIL import Image
from pydantic import Field

from darkroom.config.sources import Source
from darkroom.data.head import Head
from darkroom.data.images import Pixels, decode
from darkroom.data.manifest import Files, Manifest, SourceFile, manifest_of

# A source gives its splits in this order, so that a training picture can be compared with everything held out.
SPLIT_ORDER = ("test", "novel", "validation", "train")


@dataclass(frozen=True)
class Sample:
    """One picture with what is known about it.

    image: an encoded file, one that is yet to be read, a PIL picture, or uint8 (H, W) or (H, W, 3).
    path: its name within the source, POSIX.
    caption: "" where the source has no captions. others: its further captions, each of which becomes a row of its own.
    split: the official one; None leaves the choice to the hash of the pixels.
    labels: one class index per head of the source, -1 where absent.
    named: does the caption name that head? Same length.
    """

    image: bytes | SourceFile | Image.Image | Pixels
    path: str
    caption: str = ""
    split: str | None = None
    labels: tuple[int, ...] = ()
    mentioned: tuple[bool, ...] = ()
    others: tuple[str, ...] = ()

    def picture(self) -> Image.Image | Pixels:
        """The picture, read and decoded.

        Raises:
            UnusablePictureError: see `images.decode`.
            DarkroomError: see `SourceFile.read`.
        """
        content = self.image.read() if isinstance(self.image, SourceFile) else self.image
        return decode(content) if isinstance(content, bytes) else content


@dataclass(frozen=True)
class Skipped:
    """A file that gave no sample, and why, in words that are the same on every machine.

    picture: is a picture lost with it? Not with a caption that belongs to none.
    """

    file: str
    reason: str
    picture: bool = True


@dataclass(frozen=True)
class Description:
    """What a source says about itself before it is read.

    name: goes into dataset.json; never a path.
    size: how many items iteration will give at least, skipped ones included; for progress.
    set_aside: files that are not pictures of the user's, by what they are: hidden, a system's own, or a shard's further
    pictures of a sample. Known once the source was looked through.
    details: further entries of dataset.json.
    """

    name: str
    size: int
    heads: tuple[Head, ...] = ()
    captions: bool = True
    details: dict[str, Any] = field(default_factory=dict)
    set_aside: dict[str, int] = field(default_factory=dict)


@runtime_checkable
class Divisible(Protocol):
    """A source that makes its items: parts of them, in order, can be made in any process."""

    def chunks(self) -> Iterator[Callable[[], list[Sample | Skipped]]]: ...


class Reader(Protocol):
    """Describes its source and gives its items, splits in SPLIT_ORDER, always the same ones in the same order.

    Each file or member with a picture's suffix is one item: a Sample, or Skipped with `picture`.
    """

    @property
    def description(self) -> Description: ...

    def __iter__(self) -> Iterator[Sample | Skipped]: ...


class FilesReader(Reader, Protocol):
    """A reader of files from outside the project."""

    files: Files


class OutsideSource(Source):
    """Files from outside the project."""

    suffixes: ClassVar[tuple[str, ...]]
    """Of the files that belong to it; none where they are listed by name."""

    synthetic = False

    root: Annotated[str, Field(min_length=1)]
    """Folder of the files, relative to DARKROOM_DATA (default data/raw), or absolute."""

    manifest: Annotated[str, Field(min_length=1)] | None
    """The file that `darkroom data scan` writes, with which files are compared as they are read; auto:
    data/manifests/ROOT.json. null: files are not checked."""

    @property
    def manifest_file(self) -> Path | None:
        """What `manifest` means."""
        return manifest_of(self.root, self.manifest)

    @abstractmethod
    def reader(self, manifest: Manifest | None) -> FilesReader:
        """What reads the files, each compared with the manifest if there is one.

        Raises:
            DarkroomError: files that must be there are not.
        """

    def open(self, seed: int, image_size: int) -> FilesReader:
        """See `Source.open`."""
        file = self.manifest_file
        return self.reader(None if file is None else Manifest.load(file))
