"""Pictures with equal pixels: the first of them, and those that repeat it, in its split or in another."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from darkroom.core.text import printable
from darkroom.data.scratch import packed, scratch_database, unpacked
from darkroom.data.sources.base import SPLIT_ORDER

LISTED = 1000
CACHE_MIB = 64  # what a million pictures take, at 62 bytes each; more than that and look-ups read the disk


@dataclass(frozen=True)
class Repeat:
    """A picture and the one before it that has the same pixels, each with its split."""

    picture: str
    split: str
    same_as: str
    same_as_split: str


class Firsts:
    """Knows the first picture of each kind of pixels, and what was said of it: on disk, see `scratch_database`."""

    def __init__(self) -> None:
        self._known = scratch_database(CACHE_MIB)
        columns = "fingerprint BLOB PRIMARY KEY, split INTEGER, number INTEGER"
        self._known.execute(f"CREATE TABLE firsts ({columns}) WITHOUT ROWID")
        self._known.execute("CREATE TABLE names (number INTEGER PRIMARY KEY, picture BLOB)")
        self._known.execute("CREATE TABLE captions (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._count = 0
        self.across: list[Repeat] = []
        self.within: list[Repeat] = []
        self.count_across = self.count_within = 0

    def split_of(self, fingerprint: bytes) -> str | None:
        """The split of the picture that has these pixels; None where there is none yet."""
        found = self._known.execute("SELECT split FROM firsts WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return None if found is None else SPLIT_ORDER[found[0]]

    def number_of(self, fingerprint: bytes) -> int:
        """The number, among all first ones, of the one that has these pixels; it was noted before."""
        found = self._known.execute("SELECT number FROM firsts WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return int(found[0])

    def note(self, fingerprint: bytes, split: str, picture: str) -> bool:
        """Take note of a picture. Is it the first with its pixels?"""
        new = "INSERT OR IGNORE INTO firsts VALUES (?, ?, ?)"
        if self._known.execute(new, (fingerprint, SPLIT_ORDER.index(split), self._count)).rowcount:
            self._known.execute("INSERT INTO names VALUES (?, ?)", (self._count, packed(picture)))
            self._count += 1
            return True
        known = "SELECT split, picture FROM firsts NATURAL JOIN names WHERE fingerprint = ?"
        number, first = self._known.execute(known, (fingerprint,)).fetchone()
        first_split = SPLIT_ORDER[number]
        listed = self.within if first_split == split else self.across
        if len(listed) < LISTED:
            listed.append(Repeat(picture, split, unpacked(first), first_split))
        if first_split == split:
            self.count_within += 1
        else:
            self.count_across += 1
        return False

    def is_new(self, fingerprint: bytes, caption: str) -> bool:
        """Have these pixels not had this caption yet? From now on they have."""
        said = hashlib.blake2b(fingerprint + caption.encode(), digest_size=16).digest()
        return bool(self._known.execute("INSERT OR IGNORE INTO captions VALUES (?)", (said,)).rowcount)

    def listing(self, repeats: Literal["keep", "drop", "merge_captions"]) -> dict[str, Any]:
        """How many there are of each kind, what became of them, and the first LISTED of them by name."""
        became = {"keep": "kept", "drop": "left out", "merge_captions": "left out, but for their captions"}[repeats]
        return {
            "repeats_within_splits": _part(self.count_within, became, self.within),
            "duplicates_across_splits": _part(self.count_across, "left out", self.across),
        }


def _part(count: int, became: str, listed: list[Repeat]) -> dict[str, Any]:
    pictures = [
        {
            "picture": f"{repeat.split}: {printable(repeat.picture)}",
            "same_as": f"{repeat.same_as_split}: {printable(repeat.same_as)}",
        }
        for repeat in listed
    ]
    return {"count": count, "became": became, "listed": pictures}
