"""From any source to data/prepared: decode, conform, deal into splits, write; what is left out is accounted for."""

import hashlib
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from darkroom.core.artifact import whole
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import track
from darkroom.data.fingerprint import fingerprint as fingerprint_of
from darkroom.data.images import UnusablePictureError, conform, decode
from darkroom.data.names import shown
from darkroom.data.prepared import Info, PreparedWriter, Row
from darkroom.data.sources.base import SPLIT_ORDER, Sample, Skipped, Source

NAMED_FILES = 5  # how many bad files an error names


@dataclass(frozen=True)
class Preparation:
    """How pictures become data.

    image_size: pixels, square. channels: 1 or 3. resize: crop, pad or squash (see images.conform).
    validation_fraction, test_fraction: carved from pictures without an official split, by the hash of their pixels;
    a fraction whose split the source has officially is not carved.
    validation_from: "train", or "test" where validation is to be carved from the official test split, so that training
    keeps every picture of its own.
    max_bad_fraction: the largest share of items that may be unusable.
    limit: the most pictures a split may have; which ones stay depends on their pixels and `seed`.
    """

    image_size: int
    channels: int
    resize: str
    validation_fraction: float
    test_fraction: float
    validation_from: Literal["train", "test"]
    max_bad_fraction: float
    seed: int
    limit: int | None = None


def prepare(
    source: Source, out: Path | str, how: Preparation, watch: Callable[[str, Row], None] = lambda split, row: None
) -> Info:
    """Write the prepared data set `out`, whole or not at all; `watch` is told of each picture in it and its split.

    The same pixels never lie in two splits: a training or validation picture that an official held-out split also has
    is dropped and counted; where there is no official split, equal pixels have equal hashes and so fall together.

    Raises:
        DarkroomError: no pictures, too many bad ones, a split that would stay empty, or no official test split to carve
            validation from.
    """
    about = source.description
    with whole(out) as folder:
        writer = PreparedWriter(folder, about.name, about.heads, about.captions, how.image_size, how.channels)
        dealer = _Dealer(how)
        chosen: dict[str, _Fewest] = {}
        skipped: list[Skipped] = []
        items = 0
        for item in track(source, about.size, "prepare", "picture"):
            items += 1
            row = _row(item, how)
            if isinstance(row, Skipped):
                skipped.append(row)
                continue
            fingerprint = fingerprint_of(row.pixels)
            split = dealer.split(item.split if isinstance(item, Sample) else None, fingerprint)
            if split is None:
                continue
            if how.limit is None:
                writer.add(split, row)
                watch(split, row)
            else:
                chosen.setdefault(split, _Fewest(how.limit, how.seed)).offer(row, fingerprint)
        for split, fewest in chosen.items():
            for row in fewest:
                writer.add(split, row)
                watch(split, row)
        _check_skipped(skipped, items, how.max_bad_fraction)
        _check_splits(writer.splits, items)
        listed = sorted(({"file": s.file, "reason": s.reason} for s in skipped), key=lambda s: (s["file"], s["reason"]))
        return writer.finish(listed, dealer.duplicates, about.details)


def _row(item: Sample | Skipped, how: Preparation) -> Row | Skipped:
    if isinstance(item, Skipped):
        return Skipped(shown(item.file), shown(item.reason))
    path = item.path.encode("utf-8", "backslashreplace").decode()  # names inside archives may be any bytes
    try:
        image = decode(item.image) if isinstance(item.image, bytes) else item.image
        pixels = conform(image, how.image_size, how.channels, how.resize)
    except UnusablePictureError as error:
        return Skipped(shown(item.path), str(error))
    return Row(pixels, path, item.caption, item.labels, item.named)


class _Dealer:
    """Says which split a picture belongs to, and drops what a held-out split already has."""

    def __init__(self, how: Preparation) -> None:
        self.how = how
        self.duplicates = 0
        self._official: dict[bytes, str] = {}
        self._seen: set[str] = set()
        self._last = 0

    def split(self, official: str | None, fingerprint: bytes) -> str | None:
        """The split, or None for a duplicate of a held-out picture."""
        name = official or "train"
        rank = SPLIT_ORDER.index(name)
        if rank < self._last:
            raise ValueError(f"a source gave {name} after {SPLIT_ORDER[self._last]}; the order is {SPLIT_ORDER}")
        self._last = rank
        place = int.from_bytes(fingerprint[:8], "big") / 2**64  # uniform in [0, 1), fixed for these pixels
        if self.how.validation_from == "test":
            name = self._carved_from_test(name, place)
        held_out = self._official.get(fingerprint, name)
        if held_out != name:
            self.duplicates += 1
            return None
        if name != "train":
            self._official[fingerprint] = name
            self._seen.add(name)
            return name
        for carved, fraction in (("test", self.how.test_fraction), ("validation", self.how.validation_fraction)):
            if carved not in self._seen:
                if place < fraction:
                    return carved
                place -= fraction
        return "train"

    def _carved_from_test(self, name: str, place: float) -> str:
        """The split of a picture that the source gives as `name`, where validation comes from the test split."""
        if name == "test":
            self._seen |= {"test", "validation"}
            return "validation" if place < self.how.validation_fraction else "test"
        wrong = {"validation": "has a validation", "train": "" if "test" in self._seen else "has no test"}.get(name)
        if wrong:
            raise DarkroomError(
                f"prepare_data.validation_from = 'test', but the source {wrong} split of its own; use train"
            )
        return name


class _Fewest:
    """Keeps the `n` rows whose seeded hash is lowest, and gives them back in the order they came."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed
        self._heap: list[tuple[int, int, Row]] = []
        self._count = 0

    def offer(self, row: Row, fingerprint: bytes) -> None:
        keyed = hashlib.blake2b(fingerprint, key=str(self.seed).encode(), digest_size=8).digest()
        self._count += 1
        entry = (-int.from_bytes(keyed, "big"), -self._count, row)  # a heap of the lowest keeps the highest on top
        if len(self._heap) < self.n:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def __iter__(self) -> Iterator[Row]:
        return (row for _, _, row in sorted(self._heap, key=lambda entry: -entry[1]))


def _check_skipped(skipped: list[Skipped], items: int, most: float) -> None:
    if len(skipped) <= most * items:
        return
    first = "; ".join(f"{s.file}: {s.reason}" for s in skipped[:NAMED_FILES])
    raise DarkroomError(
        f"{len(skipped)} of {items} files cannot be used, more than prepare_data.max_bad_fraction = {most:g} allows; "
        f"mend or remove them, or raise it. First: {first}"
    )


def _check_splits(splits: dict[str, int], items: int) -> None:
    for name, remedy in (
        ("train", "lower prepare_data.validation_fraction"),
        ("validation", "raise prepare_data.validation_fraction"),
        ("test", "raise the fraction held out"),
    ):
        if not splits.get(name):
            raise DarkroomError(f"split {name}: none of {items} pictures fell into it; give more pictures, or {remedy}")
