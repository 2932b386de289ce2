"""Buckets by aspect ratio: the sizes, other than one square, that pictures are brought to."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from darkroom.config.base import Section

Size = tuple[int, int]  # height, width in pixels
MOST = 64  # buckets; a network is compiled for each
SMALLEST, LARGEST = 8, 4096  # pixels of a side
Side = Annotated[int, Field(ge=SMALLEST, le=LARGEST)]
Sizes = Annotated[list[Annotated[list[Side], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=MOST)]


class BucketGrid(Section):
    """Every size of whole steps that is as large as its area allows: with a step more on both sides it would be
    larger."""

    area: Annotated[int, Field(ge=SMALLEST**2, le=LARGEST**2)]
    """Pixels of a picture, at most; image_size squared, as a rule."""

    step: Annotated[int, Field(ge=SMALLEST, le=1024)]
    """Pixels by which sides differ and are divisible; 64 is usual for 512 or 1024 pixels. A multiple of what the
    autoencoder and the U-Net divide sides by."""

    max_aspect: Annotated[float, Field(ge=1, le=16)]
    """Longer side by shorter, at most."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (found := len(self.sizes)):
            raise ValueError(f"area = {self.area} has no room for {self.step} x {self.step} pixels; lower step")
        if found > MOST:
            raise ValueError(f"step = {self.step} makes {found} buckets, above {MOST}; raise it, or lower max_aspect")
        return self

    @property
    def sizes(self) -> list[Size]:
        """From the widest to the tallest."""
        step, longest = self.step, min(self.area // self.step, LARGEST)
        sides = range(step, longest + 1, step)
        found = [
            (height, width)
            for height in sides
            for width in range(step, min(self.area // height, longest) + 1, step)
            if (height + step) * (width + step) > self.area
            and max(height, width) <= self.max_aspect * min(height, width)
        ]
        return sorted(found, key=lambda size: (size[0] / size[1], size))


def _form(value: Any) -> Literal["sizes", "grid"]:
    return "sizes" if isinstance(value, list) else "grid"


Buckets = Annotated[Annotated[Sizes, Tag("sizes")] | Annotated[BucketGrid, Tag("grid")], Discriminator(_form)]


def sizes_of(buckets: Sequence[Sequence[int]] | BucketGrid) -> tuple[Size, ...]:
    """The sizes that buckets mean, in their order.

    Raises:
        ValueError: one is listed twice.
    """
    if isinstance(buckets, BucketGrid):
        return tuple(buckets.sizes)
    found = tuple((height, width) for height, width in buckets)
    for size in found:
        if found.count(size) > 1:
            raise ValueError(f"buckets lists {list(size)} twice; list it once")
    return found
