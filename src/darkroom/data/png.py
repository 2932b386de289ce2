"""Prepared pictures as PNG files, which keep every pixel."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 8  # pixels of a thumbnail
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """What is kept of pixels: a PNG file; of each channel, the sum of its values and of their squares; a thumbnail, by
    which near-duplicates are found: uint8 (SIDE, SIDE) or (SIDE, SIDE, 3)."""

    png: bytes
    total: tuple[int, ...]
    squares: tuple[int, ...]
    thumbnail: bytes

    @classmethod
    def of(cls, pixels: Pixels) -> "Encoded":
        """Of uint8 (H, W) or (H, W, 3)."""
        values = pixels.reshape(-1, 1 if pixels.ndim == 2 else pixels.shape[2]).astype(np.int64)
        thumbnail = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()
        sums = tuple(values.sum(0).tolist()), tuple((values * values).sum(0).tolist())
        return cls(encode_png(pixels), *sums, thumbnail)


def encode_png(pixels: Pixels) -> bytes:
    """uint8 (H, W) or (H, W, 3) -> the bytes of a PNG file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG", optimize=False)
    return out.getvalue()


def png_pixels(png: bytes) -> Pixels:
    """The same pixels back."""
    return np.asarray(Image.open(io.BytesIO(png)))
