"""What an evaluation could not judge, or only with a reservation, and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

LISTED = 5  # reasons that a line names


@dataclass(frozen=True)
class Caveat:
    """about: what it is of: a figure, or `captions`, `size`, `files`, …. said: why, and what was done instead."""

    about: str
    said: str


def listed(items: Iterable[str]) -> str:
    """The first few of several, and how many more there are."""
    every = list(items)
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return "; ".join(islice(every, LISTED)) + more
