"""What pictures are labelled with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Head:
    """One attribute of a picture and the classes it may have. Sets with one class a picture have one head, `label`."""

    name: str
    classes: tuple[str, ...]
