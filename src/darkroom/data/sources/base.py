"""What every source gives: samples and, beside them, what it had to skip."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from darkroom.data.prepared import Head

# A source gives its splits in this order, so that a training picture can be compared with everything held out.
SPLIT_ORDER = ("test", "novel", "validation", "train")


@dataclass(frozen=True)
class Sample:
    """One picture with what is known about it.

    image: an encoded file, a PIL picture, or uint8 (H, W) or (H, W, 3).
    path: its name within the source, POSIX.
    caption: "" where the source has no captions. others: its further captions, each of which becomes a row of its own.
    split: the official one; None leaves the choice to the hash of the pixels.
    labels: one class index per head of the source, -1 where absent.
    named: does the caption name that head? Same length.
    """

    image: bytes | Image.Image | npt.NDArray[np.uint8]
    path: str
    caption: str = ""
    split: str | None = None
    labels: tuple[int, ...] = ()
    named: tuple[bool, ...] = ()
    others: tuple[str, ...] = ()


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
    set_aside: files that are no pictures of the user's, by what they are: hidden, a system's own, or a shard's further
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

    def parts(self) -> Iterator[Callable[[], list[Sample | Skipped]]]: ...


class Source(Protocol):
    """Describes itself and gives its items, splits in SPLIT_ORDER, always the same ones in the same order.

    Each file or member with a picture's suffix is one item: a Sample, or Skipped with `picture`.
    """

    @property
    def description(self) -> Description: ...

    def __iter__(self) -> Iterator[Sample | Skipped]: ...
