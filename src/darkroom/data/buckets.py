"""Which bucket a picture belongs to, and how much of it is cut off for that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from darkroom.config.buckets import Size

if TYPE_CHECKING:  # sources are read, and parameters checked, without torch
    from torch import Tensor

DIGITS = 6  # of shares that are written down


@dataclass(frozen=True)
class Bucket:
    """What dataset.json says of a bucket.

    height, width: pixels. splits: name -> rows, which lie behind those of the buckets before it.
    pictures: of all splits. cropped_share: mean share of a picture's area that was cut off.
    """

    height: int
    width: int
    splits: dict[str, int]
    pictures: int
    cropped_share: float

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.height, self.width


def nearest(sizes: Sequence[Size], height: int, width: int) -> int:
    """The number of the size whose aspect ratio is nearest, by the logarithm, to that of height x width pixels.

    Of equally near ones the one with the most pixels, then the first.
    """

    def distance(size: Size) -> tuple[Fraction, int]:
        ours, others = size[1] * height, size[0] * width  # exact, so that ties are ties on every machine
        return Fraction(max(ours, others), min(ours, others)), -size[0] * size[1]

    return min(range(len(sizes)), key=lambda i: distance(sizes[i]))


def largest_part(height: int, width: int, size: Size) -> Size:
    """(height, width) of the largest part of a picture that has the shape of `size`, in whole pixels, 1 at least."""
    if width * size[0] > height * size[1]:
        return height, max(1, round(Fraction(height * size[1], size[0])))
    return max(1, round(Fraction(width * size[0], size[1]))), width


def cropped_share(height: int, width: int, size: Size) -> float:
    """The share of a picture's area outside of `largest_part`, in [0, 1)."""
    return 1 - math.prod(largest_part(height, width, size)) / (height * width)


@dataclass
class Cropped:
    """How much of the pictures was cut off so far, by bucket."""

    pictures: dict[int, int] = field(default_factory=dict)
    shares: dict[int, float] = field(default_factory=dict)

    def add(self, bucket: int, cropped: float) -> None:
        """One more picture."""
        self.pictures[bucket] = self.pictures.get(bucket, 0) + 1
        self.shares[bucket] = self.shares.get(bucket, 0.0) + cropped

    def share_of(self, bucket: int) -> float:
        """The mean share of a picture of the bucket."""
        return round(self.shares.get(bucket, 0.0) / max(1, self.pictures.get(bucket, 0)), DIGITS)

    @property
    def mean(self) -> float:
        """The mean share of a picture of any bucket."""
        return round(sum(self.shares.values()) / max(1, sum(self.pictures.values())), DIGITS)


def squashed(pictures: "Tensor", side: int) -> "Tensor":
    """Pictures uint8 (N, C, H, W) as squares, (N, C, side, side), their proportions given up."""
    import torch

    if pictures.shape[2:] == (side, side):
        return pictures
    resized = [
        np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.LANCZOS))
        for one in pictures.permute(0, 2, 3, 1).squeeze(3).numpy()
    ]
    stacked = torch.from_numpy(np.stack(resized))
    return stacked[:, None] if stacked.ndim == 3 else stacked.permute(0, 3, 1, 2).contiguous()
