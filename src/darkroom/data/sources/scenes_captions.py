"""Many ways to say what a scene shows, so that language has to be read and not matched."""

import numpy as np

SIZE_WORDS = {"small": ("small", "small", "little", "tiny"), "large": ("large", "large", "big", "huge")}

# How the subject lies to the object: before the object's name, and with the object as "it".
RELATION_WORDS = {
    "left": (("to the left of", "left of", "on the left of"), ("to the left of it", "on its left", "to its left")),
    "right": (
        ("to the right of", "right of", "on the right of"),
        ("to the right of it", "on its right", "to its right"),
    ),
    "above": (("above", "above", "over"), ("above it", "over it")),
    "below": (("below", "under", "beneath", "underneath"), ("below it", "under it", "beneath it")),
}

OPENINGS = ("there is {}", "a picture of {}", "an image of {}", "a drawing of {}", "this is {}", "here is {}")

# {s} subject, {o} object, {rel} the relation of the subject to the object, {it} the same with "it" for the object.
RELATING = (
    ("{s} {rel} {o}", 40),
    ("{s} is {rel} {o}", 10),
    ("{rel} {o} is {s}", 12),
    ("{rel} {o} there is {s}", 8),
    ("{o} with {s} {it}", 15),
)

# {a} the left or upper thing, {b} the right or lower one.
PLACING = {
    "horizontal": (
        "{a} on the left and {b} on the right",
        "{b} on the right and {a} on the left",
        "on the left is {a} and on the right is {b}",
        "on the right {b}, on the left {a}",
    ),
    "vertical": (
        "{a} at the top and {b} at the bottom",
        "{b} at the bottom and {a} at the top",
        "at the top is {a} and at the bottom is {b}",
        "at the bottom {b}, at the top {a}",
    ),
}
PLACING_SHARE = 0.15  # of the captions of two things
IN_ORDER_SHARE = 0.75  # of the captions of two things: the left or upper one is named first, as people mostly do
OPENING_SHARE = 0.35  # of the captions that can take an opening
SIZELESS_SHARE = 0.10  # of all captions: one thing goes without its size


def write_caption(
    layout: str, things: list[tuple[str, str, str]], rng: np.random.Generator
) -> tuple[str, tuple[bool, ...]]:
    """A caption, and for each thing whether its size is said.

    layout: single, horizontal or vertical; things: (size, colour, shape) of the left or upper one first.
    """
    without_size = int(rng.integers(len(things))) if rng.random() < SIZELESS_SHARE else None
    said = tuple(i != without_size for i in range(len(things)))
    names = [_name(thing, said[i], rng) for i, thing in enumerate(things)]
    if layout == "single":
        return _open(names[0], rng), said
    named_first = 0 if rng.random() < IN_ORDER_SHARE else 1
    if rng.random() < PLACING_SHARE:
        patterns = tuple(p for p in PLACING[layout] if ("{b}" in p[: p.index("{a}")]) == bool(named_first))
        return _pick(patterns, rng).format(a=names[0], b=names[1]), said
    weights = np.cumsum([weight for _, weight in RELATING])
    pattern = RELATING[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))][0]
    subject = 1 - named_first if "{o}" in pattern[: pattern.index("{s}")] else named_first
    relation = (("left", "right") if layout == "horizontal" else ("above", "below"))[subject]
    before, with_it = RELATION_WORDS[relation]
    caption = pattern.format(s=names[subject], o=names[1 - subject], rel=_pick(before, rng), it=_pick(with_it, rng))
    takes_opening = pattern.startswith(("{s} {rel}", "{o} with"))
    return (_open(caption, rng) if takes_opening else caption), said


def _name(thing: tuple[str, str, str], say_size: bool, rng: np.random.Generator) -> str:
    size, colour, shape = thing
    words = f"{_pick(SIZE_WORDS[size], rng)} {colour} {shape}" if say_size else f"{colour} {shape}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _open(caption: str, rng: np.random.Generator) -> str:
    return _pick(OPENINGS, rng).format(caption) if rng.random() < OPENING_SHARE else caption


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
