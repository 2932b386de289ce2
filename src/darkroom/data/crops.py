"""Variants of a training picture: crops of its shape, at random, that keep to its split and its half of the data."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from darkroom.core.seeds import numpy_rng
from darkroom.data.buckets import largest_part
from darkroom.data.fingerprint import fingerprint
from darkroom.data.images import Pixels, resized, with_channels

SMALLEST = 0.7  # sides of a crop, as a share of those of the largest part of the picture with its shape; at most 1
TRIES = 64  # of which half or more lead nowhere, for a crop's half is a matter of chance


def crops_of(
    image: Image.Image | Pixels, first: Pixels, how_many: int, seed: int, fits: Callable[[bytes], bool]
) -> list[Pixels]:
    """`how_many` crops of a picture, each as large as `first`: uint8 (H, W) or (H, W, 3).

    Side and place are uniform, a function of (seed, pixels of `first`, number of the crop), and taken from the picture
    at its full resolution; a crop of a small picture is enlarged. A crop is drawn anew until it fits; where none does
    in TRIES, `first` stands in its place.

    Args:
        image: decoded. first: what `conform` made of it.
        fits: is told the fingerprint of a crop.
    """
    known = fingerprint(first)
    picture = with_channels(
        Image.fromarray(image) if isinstance(image, np.ndarray) else image, 1 if first.ndim < 3 else 3
    )
    return [_crop(picture, first, numpy_rng(seed, "crops", known.hex(), i), fits) for i in range(1, how_many + 1)]


def _crop(picture: Image.Image, first: Pixels, rng: np.random.Generator, fits: Callable[[bytes], bool]) -> Pixels:
    size = first.shape[0], first.shape[1]
    largest = largest_part(picture.height, picture.width, size)
    for _ in range(TRIES):
        scale = float(rng.uniform(SMALLEST, 1))
        height, width = (max(1, round(scale * side)) for side in largest)
        left, top = (
            int(rng.integers(0, length - side + 1)) for length, side in zip(picture.size, (width, height), strict=True)
        )
        pixels = np.asarray(resized(picture, size, (left, top, left + width, top + height)))
        if fits(fingerprint(pixels)):
            return pixels
    return first
