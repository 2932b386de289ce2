"""Scenes: pictures drawn by code, one or two things whose shape, colour, size and relation the caption tells."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from darkroom.config.base import Count
from darkroom.config.sources import Source
from darkroom.core.seeds import numpy_rng
from darkroom.data.head import Head
from darkroom.data.sources.base import SPLIT_ORDER, Description, Sample, Skipped
from darkroom.data.sources.scenes_captions import write_caption
from darkroom.data.sources.scenes_drawing import DISTANCES, Background, Rgb, Thing, draw

SHAPES = tuple(DISTANCES)
COLORS: dict[str, Rgb] = {
    "red": (0.87, 0.10, 0.13),
    "orange": (0.98, 0.52, 0.04),
    "yellow": (0.98, 0.87, 0.10),
    "green": (0.10, 0.62, 0.20),
    "cyan": (0.10, 0.80, 0.86),
    "blue": (0.14, 0.33, 0.94),
    "purple": (0.53, 0.17, 0.73),
    "pink": (0.98, 0.45, 0.75),
}
RADII = {"small": 0.165, "large": 0.228}  # half-width in units of the picture's side
RADIUS_JITTER = 0.025
COLOR_JITTER = 0.025
LAYOUTS = ("single", "horizontal", "vertical")
SINGLE_SHARE = 0.35
NOVEL_PAIRS = 5  # of the 48 (colour, shape) pairs: a tenth
MARGIN, GAP = 0.016, 0.0315  # least distance to the border and between two things, in units of the picture's side
LIGHT, DARK = (0.74, 0.95), (0.07, 0.25)  # lightness of backgrounds; colours lie between, and are saturated
TINT = 0.035
AT_ONCE = 256  # scenes that are drawn together

HEADS = (
    Head("layout", LAYOUTS),
    *(
        Head(f"{which}.{attribute}", classes)
        for which in ("first", "second")
        for attribute, classes in (("shape", SHAPES), ("color", tuple(COLORS)), ("size", tuple(RADII)))
    ),
)

Pair = tuple[str, str]


@dataclass(frozen=True)
class Scene:
    """How to draw it, what to say of it, its class in each of HEADS (-1: absent), and which the caption names."""

    background: Background
    things: tuple[Thing, ...]
    caption: str
    labels: tuple[int, ...]
    mentioned: tuple[bool, ...]


class ScenesSource(Source):
    """Pictures drawn by code, with captions and structured labels."""

    labelled = False  # many attributes of a picture, and no one class
    synthetic = True

    kind: Literal["scenes"]
    """One or two things whose shape, colour, size and relation the caption tells."""

    n_train: Count
    """Scenes to train on."""

    n_validation: Count
    """Held-out scenes that the best weights are chosen by."""

    n_test: Count
    """Held-out scenes that figures are measured on."""

    n_novel: Count
    """Scenes of the split `novel`, with pairs of colour and shape that no other split has."""

    def counts(self) -> dict[str, int]:
        """See `Source.counts`."""
        return {split: getattr(self, f"n_{split}") for split in SPLIT_ORDER}

    def open(self, seed: int, image_size: int) -> "Scenes":
        """See `Source.open`."""
        return Scenes(self.n_train, self.n_validation, self.n_test, self.n_novel, seed, image_size)


@dataclass(frozen=True)
class Scenes:
    """The source: scene `index` of `split` is a pure function of (seed, split, index)."""

    n_train: int
    n_validation: int
    n_test: int
    n_novel: int
    seed: int
    image_size: int = 32

    @property
    def counts(self) -> dict[str, int]:
        """Split -> number of scenes."""
        return {s: getattr(self, f"n_{s}") for s in SPLIT_ORDER}

    @property
    def description(self) -> Description:
        details = {"novel_pairs": [list(pair) for pair in self.novel_pairs]}
        return Description("scenes", sum(self.counts.values()), HEADS, True, details)

    @cached_property
    def novel_pairs(self) -> tuple[Pair, ...]:
        """The (colour, shape) pairs kept out of every split but `novel`: distinct colours, distinct shapes."""
        rng = numpy_rng(self.seed, "scenes", "novel pairs")
        colors = rng.permutation(list(COLORS))[:NOVEL_PAIRS]
        shapes = rng.permutation(SHAPES)[:NOVEL_PAIRS]
        return tuple(sorted((str(c), str(s)) for c, s in zip(colors, shapes, strict=True)))

    def __iter__(self) -> Iterator[Sample | Skipped]:
        for chunk in self.chunks():
            yield from chunk()

    def chunks(self) -> Iterator[Callable[[], list[Sample | Skipped]]]:
        """What makes the samples, some at a time."""
        for split, count in self.counts.items():
            for start in range(0, count, AT_ONCE):
                yield partial(self._chunk, split, range(start, min(start + AT_ONCE, count)))

    def _chunk(self, split: str, indices: range) -> list[Sample | Skipped]:
        scenes = [self.scene(split, i) for i in indices]
        return [
            Sample(image, f"{split}/{i:06d}.png", scene.caption, split, scene.labels, scene.mentioned)
            for i, scene, image in zip(indices, scenes, self.draw(scenes), strict=True)
        ]

    def draw(self, scenes: list[Scene]) -> npt.NDArray[np.uint8]:
        """uint8 (N, image_size, image_size, 3)."""
        return draw([s.background for s in scenes], [s.things for s in scenes], self.image_size)

    def scene(self, split: str, index: int) -> Scene:
        """Compose one scene."""
        rng = numpy_rng(self.seed, "scenes", split, index)
        layout = LAYOUTS[0] if rng.random() < SINGLE_SHARE else LAYOUTS[1 + int(rng.integers(2))]
        pairs = self._choose_pairs(1 if layout == "single" else 2, split == "novel", rng)
        sizes = [tuple(RADII)[int(rng.integers(len(RADII)))] for _ in pairs]
        radii = [RADII[size] * (1 + RADIUS_JITTER * rng.uniform(-1, 1)) for size in sizes]
        centres = [_place_single(radii[0], rng)] if layout == "single" else _place_pair(layout, radii, rng)
        things = tuple(
            Thing(shape, x, y, radius, _jitter(COLORS[color], rng))
            for (color, shape), radius, (x, y) in zip(pairs, radii, centres, strict=True)
        )
        described = [(size, color, shape) for size, (color, shape) in zip(sizes, pairs, strict=True)]
        caption, size_said = write_caption(layout, described, rng)
        labels, mentioned = [LAYOUTS.index(layout)], [layout != "single"]
        for i in range(2):
            if i < len(pairs):
                color, shape = pairs[i]
                labels += [SHAPES.index(shape), list(COLORS).index(color), list(RADII).index(sizes[i])]
                mentioned += [True, True, size_said[i]]
            else:
                labels += [-1, -1, -1]
                mentioned += [False, False, False]
        return Scene(_choose_background(rng), things, caption, tuple(labels), tuple(mentioned))

    def _choose_pairs(self, count: int, novel: bool, rng: np.random.Generator) -> list[Pair]:
        """Distinct (colour, shape) pairs: familiar ones; with `novel` at least one unfamiliar, at a random place."""
        everything = [(c, s) for c in COLORS for s in SHAPES]
        pool = everything if novel else [p for p in everything if p not in self.novel_pairs]
        chosen = [pool[int(i)] for i in rng.choice(len(pool), count, replace=False)]
        if novel and not set(chosen) & set(self.novel_pairs):
            chosen[int(rng.integers(count))] = self.novel_pairs[int(rng.integers(NOVEL_PAIRS))]
        return chosen


def _place_single(radius: float, rng: np.random.Generator) -> tuple[float, float]:
    reach = min(0.19, 0.5 - MARGIN - radius)
    return 0.5 + reach * rng.uniform(-1, 1), 0.5 + reach * rng.uniform(-1, 1)


def _place_pair(layout: str, radii: list[float], rng: np.random.Generator) -> list[tuple[float, float]]:
    """Far apart on the axis of `layout`, nearly level on the other; never touching, never cut off."""
    first, second = radii
    slack = 1 - 2 * MARGIN - GAP - 2 * first - 2 * second
    before, until = sorted(rng.uniform(0, slack, 2))
    along = (MARGIN + before + first, MARGIN + until + GAP + 2 * first + second)
    level = 0.5 + 0.18 * rng.uniform(-1, 1)
    across = []
    for radius in radii:
        nearest = MARGIN + radius
        across.append(min(max(level + 0.05 * rng.uniform(-1, 1), nearest), 1 - nearest))
    pairs = list(zip(along, across, strict=True))
    return pairs if layout == "horizontal" else [(x, y) for y, x in pairs]


def _jitter(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    r, g, b = (float(min(max(c + COLOR_JITTER * rng.uniform(-1, 1), 0), 1)) for c in rgb)
    return r, g, b


def _choose_background(rng: np.random.Generator) -> Background:
    kind = ("plain", "linear", "linear", "radial")[int(rng.integers(4))]
    low, high = (LIGHT, DARK)[int(rng.integers(2))]
    start, end = (_greyish(float(rng.uniform(low, high)), rng) for _ in range(2))
    if kind == "radial":
        return Background(kind, start, end, float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.2, 0.8)))
    angle = float(rng.uniform(0, 2 * math.pi))
    return Background(kind, start, end, math.cos(angle), math.sin(angle))


def _greyish(lightness: float, rng: np.random.Generator) -> Rgb:
    tint = rng.uniform(-TINT, TINT, 3)
    r, g, b = (float(min(max(lightness + t, 0), 1)) for t in tint - tint.mean())
    return r, g, b
