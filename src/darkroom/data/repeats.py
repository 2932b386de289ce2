"""Pictures with equal pixels: the first of them, and those that repeat it, in its split or in another."""

from dataclasses import dataclass
from typing import Any, Literal

from darkroom.core.text import printable

LISTED = 1000


@dataclass(frozen=True)
class Repeat:
    """A picture and the one before it that has the same pixels, each with its split."""

    picture: str
    split: str
    same_as: str
    same_as_split: str


class Firsts:
    """Knows the first picture of each kind of pixels: a digest, a split and a name a picture."""

    def __init__(self) -> None:
        self._firsts: dict[bytes, tuple[str, str]] = {}
        self.across: list[Repeat] = []
        self.within: list[Repeat] = []
        self.count_across = self.count_within = 0

    def split_of(self, fingerprint: bytes) -> str | None:
        """The split of the picture that has these pixels; None where there is none yet."""
        first = self._firsts.get(fingerprint)
        return None if first is None else first[0]

    def note(self, fingerprint: bytes, split: str, picture: str) -> bool:
        """Take note of a picture. Is it the first with its pixels?"""
        entry = (split, picture)
        first = self._firsts.setdefault(fingerprint, entry)
        if first is entry:
            return True
        repeat = Repeat(picture, split, first[1], first[0])
        listed = self.within if first[0] == split else self.across
        if len(listed) < LISTED:
            listed.append(repeat)
        if first[0] == split:
            self.count_within += 1
        else:
            self.count_across += 1
        return False

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
