"""A picture of a source, decoded and conformed."""

from dataclasses import dataclass

from darkroom.data.images import Pixels
from darkroom.data.prepared_writer import Row


@dataclass(frozen=True)
class Decoded:
    """A picture, and a row for each of its captions.

    image: as it was before it was conformed, but for its channels, where that is kept: uint8 (H, W) or (H, W, 3).
    split: the official one.
    fingerprint: of its pixels.
    """

    image: Pixels | None
    rows: list[Row]
    split: str | None
    fingerprint: bytes
