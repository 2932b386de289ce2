"""Near-duplicates across splits: one picture saved twice, scaled, recompressed or in another format.

Equal pixels never lie in two splits, but these differ in their pixels, so that a network may be tested on what it was
trained on. They are counted and listed, not removed: which of them are the same picture is for a person to say.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from darkroom.core.text import printable
from darkroom.data.prepared_writer import Row
from darkroom.data.scratch import packed, scratch_database, unpacked
from darkroom.data.sources.base import SPLIT_ORDER

MOST_APART = 4.0  # grey levels, root mean square over a thumbnail
LISTED = 20
AT_ONCE, HELD_OUT_AT_ONCE = 4096, 8192  # pictures whose thumbnails are in memory
CACHE_MIB = 2
Points = npt.NDArray[np.float64]


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
    """Is shown every picture of a data set, and says which have a near-duplicate in another split.

    Thumbnails and names are on disk (see `scratch_database`); while it looks for them, 16 bytes a picture are not.
    """

    def __init__(self) -> None:
        self._known = scratch_database(CACHE_MIB)
        self._counts: dict[str, int] = {}
        self._last: dict[str, str] = {}

    def add(self, split: str, row: Row) -> None:
        """Take note of a picture; crops of it and further captions, which follow it, say no more of which one it is."""
        if row.variant or self._last.get(split) == row.path:
            return
        self._last[split] = row.path
        if split not in self._counts:
            self._known.execute(f"CREATE TABLE {_table(split)} (number INTEGER PRIMARY KEY, picture BLOB, small BLOB)")
        number = self._counts.get(split, 0)
        self._counts[split] = number + 1
        self._known.execute(
            f"INSERT INTO {_table(split)} VALUES (?, ?, ?)", (number, packed(row.path), row.encoding().thumbnail)
        )

    def found(self) -> Iterator[NearDuplicate]:
        """Those of every split that have a near-duplicate in one before it in SPLIT_ORDER, in the order they came.

        A k-d tree holds HELD_OUT_AT_ONCE of the pictures held out at a time: up to so many, the time is about that of
        sorting the pictures.
        """
        splits = [split for split in SPLIT_ORDER if split in self._counts]
        for i, split in enumerate(splits[1:], 1):
            apart, nearest = self._nearest(split, splits[:i])
            for k in np.flatnonzero(np.isfinite(apart)).tolist():
                like_split, number = self._held_out(splits[:i], int(nearest[k]))
                names = self._name(split, k), split, self._name(like_split, number), like_split
                yield NearDuplicate(*names, round(float(apart[k]), 2))

    def _nearest(self, split: str, held_out: Sequence[str]) -> tuple[Points, npt.NDArray[np.int64]]:
        """Of each picture of a split, how far off the nearest of those held out is, infinity where it is more than
        MOST_APART, and its number among them."""
        count = self._counts[split]
        apart, nearest = np.full(count, np.inf), np.zeros(count, np.int64)
        for first, points in self._points(held_out, HELD_OUT_AT_ONCE):
            tree = cKDTree(points)
            for start, asked in self._points([split], AT_ONCE):
                distances, numbers = tree.query(asked, distance_upper_bound=MOST_APART)
                rows = slice(start, start + len(asked))
                nearer = distances < apart[rows]
                apart[rows] = np.where(nearer, distances, apart[rows])
                nearest[rows] = np.where(nearer, first + numbers, nearest[rows])
        return apart, nearest

    def _points(self, splits: Sequence[str], size: int) -> Iterator[tuple[int, Points]]:
        """Thumbnails of the pictures of splits, one after the other: the number of the first and (up to `size`, values
        of a thumbnail), scaled so that a distance is a root mean square."""
        rows = chain(*(self._known.execute(f"SELECT small FROM {_table(s)} ORDER BY number") for s in splits))
        first = 0
        while small := b"".join(row[0] for row in islice(rows, size)):
            left = sum(self._counts[split] for split in splits) - first
            values = np.frombuffer(small, np.uint8).reshape(min(size, left), -1)
            yield first, values.astype(np.float64) / math.sqrt(values.shape[1])
            first += len(values)

    def _held_out(self, splits: Sequence[str], number: int) -> tuple[str, int]:
        """The split of a picture with this number among those of several splits, and its number there."""
        for split in splits:
            if number < self._counts[split]:
                return split, number
            number -= self._counts[split]
        raise IndexError(number)

    def _name(self, split: str, number: int) -> str:
        found = self._known.execute(f"SELECT picture FROM {_table(split)} WHERE number = ?", (number,)).fetchone()
        return unpacked(found[0])


def _table(split: str) -> str:
    return f"split_{SPLIT_ORDER.index(split)}"


def listing(found: Iterable[NearDuplicate]) -> dict[str, Any]:
    """How many there are, and the nearest of them by name."""
    count = 0

    def counted() -> Iterator[NearDuplicate]:
        nonlocal count
        for pair in found:
            count += 1
            yield pair

    nearest = nsmallest(LISTED, counted(), lambda pair: (pair.apart, SPLIT_ORDER.index(pair.split), pair.picture))
    listed = [
        {
            "picture": f"{pair.split}: {printable(pair.picture)}",
            "like": f"{pair.like_split}: {printable(pair.like)}",
            "apart": pair.apart,
        }
        for pair in nearest
    ]
    return {"count": count, "grey_levels_apart_at_most": MOST_APART, "nearest": listed}
