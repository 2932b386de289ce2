"""Lists of numbers as people write them: 0-3, 7."""

import math
import re

from darkroom.core.errors import DarkroomError
from darkroom.core.limits import SEED
from darkroom.serving.limits import Limits

SEEDS = "0-3, 7"  # an example
ONE = re.compile(r"([0-9]{1,19})(?:\s*[-–…]\s*([0-9]{1,19}))?")


def seeds_in(text: str, limits: Limits) -> list[int]:
    """The seeds of a list of numbers and ranges, each once, in its order; a range includes its end.

    Raises:
        DarkroomError: not such a list, a range that runs backwards, or a seed that is too large.
        LimitError: more than a request may have.
    """
    found: dict[int, None] = {}
    for piece in filter(None, (piece.strip() for piece in re.split(r"[,;\n]", text))):
        match = ONE.fullmatch(piece)
        if match is None:
            raise DarkroomError(f"seeds = {piece!r}: give whole numbers from 0 on and ranges, such as {SEEDS}")
        first, last = int(match[1]), int(match[2] or match[1])
        SEED.check("seed", last)
        if last < first:
            raise DarkroomError(f"seeds = {piece!r}: runs backwards; write {last}-{first}")
        limits.check("rows", last - first + 1, "pictures", "give fewer seeds")
        found |= dict.fromkeys(range(first, last + 1))
    if not found:
        raise DarkroomError(f"seeds: none given; give whole numbers and ranges, such as {SEEDS}")
    limits.check("rows", len(found), "pictures", "give fewer seeds")
    return list(found)


def numbers_in(text: str, what: str) -> list[float]:
    """The numbers of a list, each once.

    Raises:
        DarkroomError: not such a list.
    """
    try:
        found = list(dict.fromkeys(float(piece) for piece in re.split(r"[,;\s]+", text.strip()) if piece))
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise DarkroomError(f"{what} = {text!r}: give numbers separated by commas, such as 1, 3, 7.5")
    return found
