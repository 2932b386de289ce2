"""From any source to data/prepared: decode, conform, deal into splits, write; what is left out is accounted for."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from darkroom.config.sections import Preparation
from darkroom.core.artifact import atomic_path
from darkroom.core.errors import DarkroomError
from darkroom.core.output_shards import Shards
from darkroom.core.progress import track
from darkroom.data.account import Account
from darkroom.data.buckets import Cropped
from darkroom.data.crops import crops_of
from darkroom.data.decoded import Decoded
from darkroom.data.decoding import Decoding, decoded
from darkroom.data.fingerprint import fingerprint as fingerprint_of
from darkroom.data.fingerprint import half, position
from darkroom.data.images import Pixels
from darkroom.data.prepared import Info, Prepared
from darkroom.data.prepared_writer import PreparedWriter, Row
from darkroom.data.repeats import Firsts
from darkroom.data.sources.base import SPLIT_ORDER, Reader, Skipped

NAMED_FILES = 5  # how many bad files an error names


def prepare(
    source: Reader,
    out: Path | str,
    preparation: Preparation,
    watch: Callable[[str, Row], None] = lambda split, row: None,
    firsts: Firsts | None = None,
    check: Callable[[Prepared], None] = lambda data: None,
    shards: Shards | None = None,
) -> Info:
    """Write the prepared data set `out`, whole or not at all; `watch` is told of each row in it and its split, and
    `firsts` afterwards knows the pictures with equal pixels.

    `check` is given the data set before it is put in place and may raise. `shards` decodes, where it has not done
    so before.

    The same pixels never lie in two splits: a training or validation picture that an official held-out split also has
    is dropped and counted; where there is no official split, equal pixels have equal hashes and so fall together.

    Raises:
        DarkroomError: no pictures, too many bad ones, a split that would stay empty, or no official test split to carve
            validation from.
    """
    about = source.description
    with atomic_path(out) as folder:
        writer = PreparedWriter(
            folder, about.name, about.heads, about.captions, preparation.image_size, preparation.channels
        )
        writer.sizes = () if preparation.buckets is None else preparation.sizes

        def write(split: str, row: Row) -> None:
            writer.add(split, row)
            watch(split, row)

        books = _Books(preparation, write, Firsts() if firsts is None else firsts, writer.cropped)
        reading = Decoding(preparation.sizes, preparation.channels, preparation.resize, keeps=preparation.crops > 1)
        with closing(decoded(source, reading, shards or Shards())) as pictures:
            for picture in track(pictures, about.size, "prepare", "picture"):
                books.enter(picture)
        books.close()
        account = books.account
        _check_skipped(books.skipped, account, preparation.max_bad_fraction)
        _check_splits(writer.splits, account.seen)
        if not account.adds_up:
            raise AssertionError(f"pictures without account: {account}")
        info = writer.finish(
            account, _listed(books.skipped), _listed(books.strays), about.set_aside, about.details, preparation.crops
        )
        check(Prepared(folder, info))
        return info


class _Books:
    """Enters each item of a source in one place of the account, and passes on what is kept."""

    def __init__(
        self, preparation: Preparation, write: Callable[[str, Row], None], firsts: Firsts, cropped: Cropped
    ) -> None:
        self.preparation, self._write, self._firsts, self._cropped = preparation, write, firsts, cropped
        self.skipped: list[Skipped] = []
        self.strays: list[Skipped] = []
        self._dealer = _Dealer(preparation, firsts)
        self._chosen: dict[str, _Fewest] = {}
        self._counts: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()  # of the pictures of each split, where none is found again

    @property
    def account(self) -> Account:
        """So far."""
        return Account(**self._counts, skipped=len(self.skipped))

    def enter(self, picture: Decoded | Skipped) -> None:
        """A picture, or what is none."""
        if isinstance(picture, Skipped):
            (self.skipped if picture.picture else self.strays).append(picture)
            self._counts["seen"] += picture.picture
            return
        self._counts["seen"] += 1
        rows, fingerprint = picture.rows, picture.fingerprint
        split = self._dealer.split(picture.split, fingerprint)
        first = self._firsts.note(fingerprint, split, rows[0].path)
        if not first and self._firsts.split_of(fingerprint) != split:
            self._counts["duplicates_across_splits"] += 1
            return
        if self.preparation.repeats == "merge_captions":
            rows = [row for row in rows if self._firsts.is_new(fingerprint, row.caption)]
        stays = first or self.preparation.repeats == "keep"
        if split == "train" and picture.image is not None and (stays or self.preparation.repeats == "merge_captions"):
            rows = self._with_crops(rows, picture.image)
        if stays:
            self._keep(split, fingerprint, rows, not first)
            return
        self._counts["repeats_within_splits"] += 1
        if self.preparation.repeats == "merge_captions":
            self._add_rows(split, fingerprint, rows)

    def close(self) -> None:
        """Pass on what was held back until the pictures of a limited split were known."""
        for split, fewest in self._chosen.items():
            for chosen in fewest:
                self._write_picture(split, None, chosen.rows, chosen.repeat)
            self._counts["over_limit"] += fewest.turned_away

    def _with_crops(self, rows: list[Row], image: Pixels) -> list[Row]:
        """Behind each row of a training picture those of its crops."""
        if not rows:
            return rows
        first = rows[0].picture()
        of = half(fingerprint_of(first))

        def fits(crop: bytes) -> bool:
            return half(crop) == of and self._dealer.trains(crop)

        variants = [first, *crops_of(image, first, self.preparation.crops - 1, self.preparation.seed, fits)]
        encoded = [rows[0].encoded, *[None] * (self.preparation.crops - 1)]
        return [
            replace(row, pixels=pixels, variant=i, encoded=encoded[i])
            for row in rows
            for i, pixels in enumerate(variants)
        ]

    def _keep(self, split: str, fingerprint: bytes, rows: list[Row], repeat: bool) -> None:
        if self.preparation.limit is None:
            self._write_picture(split, fingerprint, rows, repeat)
        else:
            self._chosen.setdefault(split, _Fewest(self.preparation.limit, self.preparation.seed)).offer(
                rows, repeat, fingerprint
            )

    def _add_rows(self, split: str, fingerprint: bytes, rows: list[Row]) -> None:
        """Further captions of a picture that was entered before."""
        if self.preparation.limit is None:
            number = self._firsts.number_of(fingerprint)
            for row in rows:
                self._write(split, replace(row, number=number))
        else:
            self._chosen[split].extend(fingerprint, rows)

    def _write_picture(self, split: str, fingerprint: bytes | None, rows: list[Row], repeat: bool) -> None:
        """fingerprint: where further captions may come."""
        self._counts["kept"] += 1
        self._counts["repeats_kept"] += repeat
        self._cropped.add(rows[0].bucket, rows[0].cropped)
        if fingerprint is not None and self.preparation.repeats == "merge_captions":
            number = self._firsts.number_of(fingerprint)
        else:
            number = self._numbers[split]
            self._numbers[split] += 1
        for row in rows:
            self._write(split, replace(row, number=number))


def _listed(skipped: list[Skipped]) -> list[dict[str, str]]:
    return sorted(({"file": s.file, "reason": s.reason} for s in skipped), key=lambda s: (s["file"], s["reason"]))


class _Dealer:
    """Says which split a picture belongs to, apart from what other splits have."""

    def __init__(self, preparation: Preparation, firsts: Firsts) -> None:
        self.preparation, self._firsts = preparation, firsts
        self._seen: set[str] = set()
        self._last = 0

    def split(self, official: str | None, fingerprint: bytes) -> str:
        """By the source, or by the hash of its pixels."""
        name = official or "train"
        rank = SPLIT_ORDER.index(name)
        if rank < self._last:
            raise ValueError(f"a source gave {name} after {SPLIT_ORDER[self._last]}; the order is {SPLIT_ORDER}")
        self._last = rank
        if self.preparation.validation_from == "test":
            name = self._carved_from_test(name, position(fingerprint))
        if name != "train":
            if self._firsts.split_of(fingerprint) in (None, name):
                self._seen.add(name)
            return name
        return self._carved(position(fingerprint))

    def trains(self, fingerprint: bytes) -> bool:
        """Would a picture with these pixels be a training picture, were there one, wherever in the source it came?"""
        return self._firsts.split_of(fingerprint) in (None, "train") and self._carved(position(fingerprint)) == "train"

    def _carved(self, left: float) -> str:
        """The split of a picture at this place that no split was given for."""
        for carved, fraction in (
            ("test", self.preparation.test_fraction),
            ("validation", self.preparation.validation_fraction),
        ):
            if carved not in self._seen:
                if left < fraction:
                    return carved
                left -= fraction
        return "train"

    def _carved_from_test(self, name: str, at: float) -> str:
        """The split of a picture that the source gives as `name`, where validation comes from the test split."""
        if name == "test":
            self._seen |= {"test", "validation"}
            return "validation" if at < self.preparation.validation_fraction else "test"
        wrong = {"validation": "has a validation", "train": "" if "test" in self._seen else "has no test"}.get(name)
        if wrong:
            raise DarkroomError(
                f"prepare_data.validation_from = 'test', but the source {wrong} split of its own; use train"
            )
        return name


@dataclass
class _Chosen:
    """A picture's rows; repeat: has one before it in its split the same pixels?"""

    rows: list[Row]
    repeat: bool


class _Fewest:
    """Keeps the `n` pictures whose seeded hash is lowest, and gives them back in the order they came."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed
        self.turned_away = 0
        self._heap: list[tuple[int, int, _Chosen, bytes]] = []
        self._by_pixels: dict[bytes, _Chosen] = {}
        self._count = 0

    def offer(self, rows: list[Row], repeat: bool, fingerprint: bytes) -> None:
        keyed = hashlib.blake2b(fingerprint, key=str(self.seed).encode(), digest_size=8).digest()
        self._count += 1
        # A heap of the lowest keeps the highest on top.
        entry = (-int.from_bytes(keyed, "big"), -self._count, _Chosen(rows, repeat), fingerprint)
        self._by_pixels[fingerprint] = entry[2]
        heapq.heappush(self._heap, entry)
        if len(self._heap) > self.n:
            gone = heapq.heappop(self._heap)
            self.turned_away += 1
            if self._by_pixels.get(gone[3]) is gone[2]:
                del self._by_pixels[gone[3]]

    def extend(self, fingerprint: bytes, rows: list[Row]) -> None:
        """Add rows to the picture with these pixels, if it is among those kept."""
        if fingerprint in self._by_pixels:
            self._by_pixels[fingerprint].rows.extend(rows)

    def __iter__(self) -> Iterator[_Chosen]:
        return (chosen for _, _, chosen, _ in sorted(self._heap, key=lambda entry: -entry[1]))


def _check_skipped(skipped: list[Skipped], account: Account, most: float) -> None:
    if account.skipped <= most * account.seen:
        return
    first = "; ".join(f"{s.file}: {s.reason}" for s in skipped[:NAMED_FILES])
    raise DarkroomError(
        f"{account.skipped} of {account.seen} pictures cannot be used, more than prepare_data.max_bad_fraction = "
        f"{most:g} allows; fix or remove them, or raise it. First: {first}"
    )


def _check_splits(splits: dict[str, int], items: int) -> None:
    for name, remedy in (
        ("train", "lower prepare_data.validation_fraction"),
        ("validation", "raise prepare_data.validation_fraction"),
        ("test", "raise the fraction held out"),
    ):
        if not splits.get(name):
            raise DarkroomError(f"split {name}: none of {items} pictures fell into it; give more pictures, or {remedy}")
