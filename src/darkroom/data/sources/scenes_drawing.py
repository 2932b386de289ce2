"""Drawing scenes: a batch of flat shapes on soft backgrounds, with exact-looking edges at any size.

Only + - * / sqrt, minimum and maximum touch pixels, so a picture has the same bytes on every processor.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Rgb = tuple[float, float, float]

SUBPIXELS = 4  # samples per pixel and axis


@dataclass(frozen=True)
class Thing:
    """A shape to draw. x, y, radius in units of the picture's side; x to the right, y down; rgb in [0, 1]."""

    shape: str
    x: float
    y: float
    radius: float
    rgb: Rgb


@dataclass(frozen=True)
class Background:
    """From `start` to `end`, rgb in [0, 1]: along a direction (`kind` linear), from a centre (radial), or plain.

    x, y: the unit direction, or the centre in units of the picture's side.
    """

    kind: str
    start: Rgb
    end: Rgb
    x: float = 0.0
    y: float = 0.0


# Signed distances, negative inside, of shapes in the square from -1 to 1; corners stay sharp outside too. Any two of
# them differ in three tenths of it: what sets a shape apart is what a model learns it by.


def _circle(x: Array, y: Array) -> Array:
    return np.sqrt(x * x + y * y) - 0.9


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.sqrt(x * x + y * y) - 0.8) - 0.2


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 1


def _cross(x: Array, y: Array) -> Array:
    x, y = np.abs(x), np.abs(y)
    # Of the two arms, the longer coordinate always lies in the nearer one.
    d: Array = np.maximum(np.maximum(x, y) - 1, np.minimum(x, y) - 0.25)
    return d


def _triangle(x: Array, y: Array) -> Array:
    half_height = 0.95
    side = (2 * half_height * np.abs(x) - (y + half_height)) / math.hypot(2 * half_height, 1)
    d: Array = np.maximum(side, y - half_height)
    return d


def _hourglass(x: Array, y: Array) -> Array:
    waist = 0.12
    y = np.abs(y)
    side = (np.abs(x) - waist - (1 - waist) * y) / math.hypot(1, 1 - waist)
    d: Array = np.maximum(side, y - 1)
    return d


DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "hourglass": _hourglass,
    "ring": _ring,
}


def draw(
    backgrounds: Sequence[Background], things: Sequence[Sequence[Thing]], image_size: int
) -> npt.NDArray[np.uint8]:
    """Draw each background with its things over it, in their order: uint8 (N, image_size, image_size, 3)."""
    window = 2 * math.ceil(image_size * max(t.radius for row in things for t in row)) + 2
    pad = window // 2 + 1
    canvas = np.zeros((len(things), image_size + 2 * pad, image_size + 2 * pad, 3), np.float32)
    canvas[:, pad:-pad, pad:-pad] = _draw_backgrounds(backgrounds, image_size)
    for layer in range(max(len(row) for row in things)):
        for shape, distance in DISTANCES.items():
            rows = [i for i, row in enumerate(things) if len(row) > layer and row[layer].shape == shape]
            if rows:
                _draw_layer(canvas, rows, [things[i][layer] for i in rows], distance, image_size, window, pad)
    return (canvas[:, pad:-pad, pad:-pad] * 255 + 0.5).astype(np.uint8)


def _draw_layer(
    canvas: Array,
    rows: list[int],
    things: list[Thing],
    distance: Callable[[Array, Array], Array],
    image_size: int,
    window: int,
    pad: int,
) -> None:
    """Paint one thing of the same shape onto each of `rows`, within a window of pixels around it."""
    centre = np.array([(t.x, t.y) for t in things], np.float32) * image_size
    radius = np.array([t.radius for t in things], np.float32)[:, None, None] * image_size
    corner = np.floor(centre).astype(np.int64) - window // 2 + 1  # (n, 2) the window's first pixel
    steps = (np.arange(window * SUBPIXELS, dtype=np.float32) + 0.5) / SUBPIXELS
    x = (corner[:, 0, None] + steps - centre[:, 0, None])[:, None, :].astype(np.float32) / radius
    y = (corner[:, 1, None] + steps - centre[:, 1, None])[:, :, None].astype(np.float32) / radius
    x, y = np.broadcast_arrays(x, y)
    # A ramp one subpixel wide around the edge, averaged over the subpixels of each pixel.
    covered = np.clip(0.5 - distance(x, y) * (radius * SUBPIXELS), 0, 1)
    covered = covered.reshape(len(rows), window, SUBPIXELS, window, SUBPIXELS).sum((2, 4)) / SUBPIXELS**2
    across = np.arange(window)
    region = (
        np.array(rows)[:, None, None],
        (corner[:, 1, None] + across + pad)[:, :, None],
        (corner[:, 0, None] + across + pad)[:, None, :],
    )
    below = canvas[region]
    rgb = np.array([t.rgb for t in things], np.float32)[:, None, None]
    canvas[region] = below + covered[..., None] * (rgb - below)


def _draw_backgrounds(backgrounds: Sequence[Background], image_size: int) -> Array:
    steps = (np.arange(image_size, dtype=np.float32) + 0.5) / image_size
    x, y = steps[None, None, :], steps[None, :, None]
    px, py = (np.array([getattr(b, k) for b in backgrounds], np.float32)[:, None, None] for k in ("x", "y"))
    kinds = np.array([b.kind for b in backgrounds])[:, None, None]
    linear = 0.5 + ((x - 0.5) * px + (y - 0.5) * py) / (np.abs(px) + np.abs(py) + np.float32(1e-6))
    radial = np.minimum(np.sqrt((x - px) ** 2 + (y - py) ** 2), 1)
    radial = radial * radial * (3 - 2 * radial)
    along = np.where(kinds == "linear", linear, np.where(kinds == "radial", radial, 0))[..., None]
    start, end = (np.array([getattr(b, k) for b in backgrounds], np.float32)[:, None, None] for k in ("start", "end"))
    out: Array = start + along * (end - start)
    return out
