"""Near-duplicates across splits: one picture saved twice, scaled, recompressed or in another format.

Equal pixels never lie in two splits, but these differ in their pixels, so that a network may be tested on what it was
trained on. They are counted and listed, not removed: which of them are the same picture is for a person to say.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from darkroom.core.text import printable
from darkroom.data.prepared_writer import Row
from darkroom.data.sources.base import SPLIT_ORDER

MOST_APART = 4.0  # grey levels, root mean square over a thumbnail
LISTED = 20
AT_ONCE = 10_000


@dataclass(frozen=True)
class NearDuplicate:
    """A picture, the one most like it in a split that is held out before its own, and how far apart they are: the root
    mean square of their thumbnails' difference, in grey levels."""

    picture: str
    split: str
    like: str
    like_split: str
    apart: float


class NearDuplicates:
    """Is shown every picture of a data set, and says which have a near-duplicate in another split."""

    def __init__(self) -> None:
        self._thumbnails: dict[str, bytearray] = {}
        self._paths: dict[str, list[str]] = {}

    def add(self, split: str, row: Row) -> None:
        """Take note of a picture; crops of it say no more of which picture it is."""
        if row.variant:
            return
        self._thumbnails.setdefault(split, bytearray()).extend(row.encoding().thumbnail)
        self._paths.setdefault(split, []).append(row.path)

    def found(self) -> list[NearDuplicate]:
        """Those of every split that have a near-duplicate in one before it in SPLIT_ORDER, the nearest first.

        A k-d tree holds the pictures held out, so the time is about that of sorting the pictures.
        """
        found: list[NearDuplicate] = []
        splits = [split for split in SPLIT_ORDER if split in self._paths]
        for i, split in enumerate(splits[1:], 1):
            held_out = [(name, path) for name in splits[:i] for path in self._paths[name]]
            tree = cKDTree(np.concatenate([self._points(name) for name in splits[:i]]))
            points = self._points(split)
            for start in range(0, len(points), AT_ONCE):
                apart, nearest = tree.query(points[start : start + AT_ONCE], distance_upper_bound=MOST_APART)
                for k in np.flatnonzero(np.isfinite(apart)):
                    like_split, like = held_out[nearest[k]]
                    path = self._paths[split][start + k]
                    found.append(NearDuplicate(path, split, like, like_split, round(float(apart[k]), 2)))
        return sorted(found, key=lambda pair: (pair.apart, SPLIT_ORDER.index(pair.split), pair.picture))

    def _points(self, split: str) -> npt.NDArray[np.float64]:
        """(pictures, values of a thumbnail), scaled so that a distance is a root mean square."""
        values = np.frombuffer(self._thumbnails[split], np.uint8).reshape(len(self._paths[split]), -1)
        return values.astype(np.float64) / math.sqrt(values.shape[1])


def listing(found: list[NearDuplicate]) -> dict[str, Any]:
    """How many there are, and the nearest of them by name."""
    nearest = [
        {
            "picture": f"{pair.split}: {printable(pair.picture)}",
            "like": f"{pair.like_split}: {printable(pair.like)}",
            "apart": pair.apart,
        }
        for pair in found[:LISTED]
    ]
    return {"count": len(found), "grey_levels_apart_at_most": MOST_APART, "nearest": nearest}
