"""What a report is laid out from. Templates write each block by its `kind`."""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from markupsafe import Markup

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Cell:
    """A cell of a table. tone: "code", "worst", "number" or nothing. shade: 0 to 1, of its background.

    drawing: an inline SVG in place of the text. below: what stands small under it, as code.
    """

    text: str
    tone: str = ""
    shade: float | None = None
    drawing: Markup | None = None
    below: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    timed: bool = False
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Heading:
    """A heading below that of the section."""

    text: str
    timed: bool = False
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head; caption: stands above. matrix: cells are square. folded: seen once it is opened."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""
    matrix: bool = False
    folded: bool = False
    timed: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Drawings:
    """Inline SVGs with captions, side by side where there is room; wide: each has a line of its own."""

    drawings: Sequence[tuple[Markup, str]]
    wide: bool = False
    timed: bool = False
    kind: ClassVar[str] = "drawings"


@dataclass(frozen=True)
class Picture:
    """A PNG inside the page. size: width and height in pixels."""

    source: str
    size: tuple[int, int]
    words: str


@dataclass(frozen=True)
class Pictures:
    """Pictures with their words; row: small, several beside each other."""

    pictures: Sequence[Picture]
    row: bool = False
    timed: bool = False
    kind: ClassVar[str] = "pictures"


Block = Text | Heading | Table | Drawings | Pictures


@dataclass(frozen=True)
class Section:
    """A part of a page, with a name that links lead to."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Statement:
    """A sentence at the top of a page; leads_to: the section that says more."""

    text: str
    leads_to: str = ""
    timed: bool = False


@dataclass(frozen=True)
class Page:
    """A page. status: of a run, FINISHED, FAILED, …; of an audit, WHOLE or BROKEN. reason: why a run did not finish."""

    title: str
    about: str
    status: str
    reason: str
    statements: Sequence[Statement]
    sections: Sequence[Section]
    kind: Literal["report", "audit"] = "report"


def picture(content: bytes | None, words: str) -> Picture | None:
    """A PNG with words for it; None where it is none."""
    if content is None or not content.startswith(PNG) or len(content) < 24:
        return None
    width, height = struct.unpack(">II", content[16:24])
    return Picture(f"data:image/png;base64,{base64.b64encode(content).decode()}", (width, height), words)


def timed(blocks: Sequence[Block]) -> list[Block]:
    """The same blocks, as what no second run has alike."""
    return [replace(block, timed=True) for block in blocks]
