"""From what sources give to pictures of one size: decoded, conformed and encoded anew, by all processors at once."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from PIL import Image

from darkroom.core.ahead import in_processes, workers
from darkroom.core.text import printable
from darkroom.data.fingerprint import fingerprint
from darkroom.data.images import Pixels, UnusablePictureError, conform, decode
from darkroom.data.png import Encoded
from darkroom.data.prepared import Row
from darkroom.data.sources.base import Divisible, Reader, Sample, Skipped

AT_ONCE, BYTES_AT_ONCE = 16, 4 << 20  # pictures that go to a process together, and bytes of files, whichever is first
WORTH_PROCESSES = 1000  # pictures of a source from which others than this one help

Item = Sample | Skipped


@dataclass(frozen=True)
class Decoding:
    """How pictures are read: see `images.conform`; keeps: those before it too."""

    image_size: int
    channels: int
    resize: str
    keeps: bool


@dataclass(frozen=True)
class Decoded:
    """A picture, and a row for each of its captions.

    image: as it was before it was conformed, where that is kept. split: the official one.
    fingerprint: of its pixels.
    """

    image: Image.Image | Pixels | None
    rows: list[Row]
    split: str | None
    fingerprint: bytes


def decoded(source: Reader, decoding: Decoding) -> Generator[Decoded | Skipped]:
    """What each item of a source gives, or why nothing, in their order, however many processors there are.

    Close it where it is not taken to its end.
    """
    number = workers() if source.description.size >= WORTH_PROCESSES else 1
    if number == 1:
        yield from (_decoded(item, decoding) for item in source)
        return
    chunks = source.chunks() if isinstance(source, Divisible) else _chunks(source)
    with closing(in_processes(partial(_all_of, decoding), chunks, number)) as made:
        for chunk in made:
            yield from chunk


def _chunks(source: Reader) -> Iterator[Callable[[], list[Item]]]:
    items: list[Item] = []
    size = 0
    for item in source:
        items.append(item)
        size += len(item.image) if isinstance(item, Sample) and isinstance(item.image, bytes) else 0
        if len(items) == AT_ONCE or size >= BYTES_AT_ONCE:
            yield partial(list, items)
            items, size = [], 0
    yield partial(list, items)


def _all_of(decoding: Decoding, chunk: Callable[[], list[Item]]) -> list[Decoded | Skipped]:
    """In another process: what is written of each picture too."""
    return [_encoded(_decoded(item, decoding)) for item in chunk()]


def _encoded(picture: Decoded | Skipped) -> Decoded | Skipped:
    if isinstance(picture, Skipped):
        return picture
    encoded = Encoded.of(picture.rows[0].pixels)
    return replace(picture, rows=[replace(row, encoded=encoded) for row in picture.rows])


def _decoded(item: Item, decoding: Decoding) -> Decoded | Skipped:
    if isinstance(item, Skipped):
        return Skipped(printable(item.file), printable(item.reason), item.picture)
    path = item.path.encode("utf-8", "backslashreplace").decode()  # names inside archives may be any bytes
    try:
        image = decode(item.image) if isinstance(item.image, bytes) else item.image
        pixels = conform(image, decoding.image_size, decoding.channels, decoding.resize)
    except UnusablePictureError as error:
        return Skipped(printable(item.path), str(error))
    rows = [Row(pixels, path, caption, item.labels, item.mentioned) for caption in (item.caption, *item.others)]
    return Decoded(image if decoding.keeps else None, rows, item.split, fingerprint(pixels))
