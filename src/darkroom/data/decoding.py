"""From what sources give to pictures of one size: decoded, conformed and encoded anew, some at a time, by anybody."""

import hashlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.config.buckets import Size
from darkroom.core.output_shards import Shard, Shards
from darkroom.core.text import printable
from darkroom.data.buckets import cropped_share, nearest
from darkroom.data.decoded import Decoded
from darkroom.data.decoded_file import read_decoded, write_decoded
from darkroom.data.fingerprint import fingerprint
from darkroom.data.images import Pixels, UnusablePictureError, conform, with_channels
from darkroom.data.manifest import SourceFile
from darkroom.data.prepared_writer import Row
from darkroom.data.sources.base import Divisible, Reader, Sample, Skipped

AT_ONCE, BYTES_AT_ONCE = 256, 16 << 20  # pictures of a shard, and bytes of files, whichever is first
WORTH_SHARDS = 1000  # pictures of a source from which they are decoded shard by shard

Item = Sample | Skipped


@dataclass(frozen=True)
class Decoding:
    """How pictures are read: see `images.conform`.

    sizes: (height, width) of the buckets, or of the one square. keeps: pictures before they are conformed too.
    """

    sizes: tuple[Size, ...]
    channels: int
    resize: str
    keeps: bool


def decoded(source: Reader, decoding: Decoding, shards: Shards) -> Generator[Decoded | Skipped]:
    """What each item of a source gives, or why nothing, in their order, whoever decoded it.

    Close it where it is not taken to its end.
    """
    if source.description.size < WORTH_SHARDS:
        yield from (_decoded(item, decoding) for item in source)
        return
    if isinstance(source, Divisible):
        chunks = ((f"{i:06d}", chunk) for i, chunk in enumerate(source.chunks()))
    else:
        chunks = ((_digest(items), partial(list, items)) for items in _chunks(source))
    wanted = (Shard(f"decoded-{name}.npz", partial(_write, decoding, chunk)) for name, chunk in chunks)
    with closing(shards.made(wanted, light=True)) as files:
        for file in files:
            yield from read_decoded(file)


def _chunks(source: Reader) -> Iterator[list[Item]]:
    items: list[Item] = []
    size = 0
    for item in source:
        items.append(item)
        size += _bytes(item)
        if len(items) == AT_ONCE or size >= BYTES_AT_ONCE:
            yield items
            items, size = [], 0
    if items:
        yield items


def _bytes(item: Item) -> int:
    """Of the item's file."""
    if isinstance(item, Skipped):
        return 0
    image = item.image
    return len(image) if isinstance(image, bytes) else image.size if isinstance(image, SourceFile) else 0


def _digest(items: list[Item]) -> str:
    """Of all that is known of items, the same wherever their files lie.

    A file is known by the md5 that a manifest promises of it, and what was decoded of that content stays right whatever
    becomes of the file: another content is refused when it is read (`SourceFile.read`). Without a manifest, or where
    its size is not the promised one, so that it has to be read and is named, it is known by its size and times: it may
    change, and the stage's fingerprint stays.
    """
    content = hashlib.blake2b(digest_size=16)
    for item in items:
        picture = getattr(item, "image", None)
        if isinstance(picture, Image.Image):
            known: object = (picture.mode, picture.size, picture.getpalette(), picture.info.get("transparency"))
            data = picture.tobytes()
        elif isinstance(picture, np.ndarray):
            known, data = picture.shape, picture.tobytes()
        elif isinstance(picture, SourceFile):
            promised = picture.expected is not None and picture.expected.size == picture.size
            known, data = (picture.name, picture.expected) if promised else picture, b""
        else:
            known, data = None, picture or b""
        text = repr((replace(item, image=b"") if isinstance(item, Sample) else item, known, len(data)))
        content.update(text.encode("utf-8", "surrogatepass"))
        content.update(data)
    return content.hexdigest()


def _write(decoding: Decoding, chunk: Callable[[], list[Item]], path: Path) -> None:
    write_decoded(path, [_decoded(item, decoding) for item in chunk()])


def _decoded(item: Item, decoding: Decoding) -> Decoded | Skipped:
    if isinstance(item, Skipped):
        return Skipped(printable(item.file), printable(item.reason), item.picture)
    path = item.path.encode("utf-8", "backslashreplace").decode()  # names inside archives may be any bytes
    try:
        image = item.picture()
        height, width = image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]
        bucket = nearest(decoding.sizes, height, width)
        size = decoding.sizes[bucket]
        pixels = conform(image, size, decoding.channels, decoding.resize)
    except UnusablePictureError as error:
        return Skipped(printable(item.path), str(error))
    cropped = cropped_share(height, width, size) if decoding.resize == "crop" else 0.0
    rows = [
        Row(pixels, path, caption, item.labels, item.mentioned, bucket=bucket, cropped=cropped)
        for caption in (item.caption, *item.others)
    ]
    return Decoded(_kept(image, decoding) if decoding.keeps else None, rows, item.split, fingerprint(pixels))


def _kept(image: Image.Image | Pixels, decoding: Decoding) -> Pixels:
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return np.asarray(with_channels(picture, decoding.channels))
