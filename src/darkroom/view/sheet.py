"""Sheets of pictures with captions."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE = 128  # pixels of a picture's side on a sheet
GUTTER = 16
JOINT = 4  # between pictures that belong together
LINE = 14
LETTERS = 20  # a line of text has, per picture above it
LINES = 4  # a caption has at most
STRIP_ROWS, STRIP_COLUMNS = 4, 8  # pictures that a strip shows, and moments of each
PAPER, INK, PALE = (250, 249, 246), (40, 40, 44), (130, 130, 136)
RIGHT, WRONG = (46, 125, 80), (178, 58, 48)


@dataclass(frozen=True)
class Plate:
    """Pictures side by side with a caption below; verdict: marks it ✓ (True) or ✗ (False), None: not."""

    pictures: Sequence[Image.Image]
    caption: str
    verdict: bool | None = None


@dataclass(frozen=True)
class Moment:
    """A column of a strip: for each caption the picture so far and the one expected."""

    heading: str
    so_far: Sequence[Image.Image]
    expected: Sequence[Image.Image]


def sheet(plates: Sequence[Plate], columns: int, heading: str = "") -> Image.Image:
    """Plates in rows of `columns`, all with the same number of pictures; `heading` stands small above them."""
    columns = min(columns, len(plates))
    across = len(plates[0].pictures)
    wide = across * PICTURE + (across - 1) * JOINT
    texts = [_wrap(plate.caption, LETTERS * across, LINES) for plate in plates]
    cell = PICTURE + max(map(len, texts)) * LINE + GUTTER
    top = GUTTER + (LINE + 4 if heading else 0)
    width = max(columns * (wide + GUTTER), int(_font(10).getlength(heading)) + GUTTER)
    out = _paper(GUTTER + width, top + -(-len(plates) // columns) * cell)
    pen = ImageDraw.Draw(out)
    pen.text((GUTTER, GUTTER - 4), heading, fill=PALE, font=_font(10))
    for i, (plate, lines) in enumerate(zip(plates, texts, strict=True)):
        x, y = GUTTER + (i % columns) * (wide + GUTTER), top + (i // columns) * cell
        for k, picture in enumerate(plate.pictures):
            out.paste(enlarged(picture), (x + k * (PICTURE + JOINT), y))
        for k, line in enumerate(lines):
            pen.text((x, y + PICTURE + 2 + k * LINE), line, fill=INK, font=_font(10))
        if plate.verdict is not None:
            mark, ink = ("✓", RIGHT) if plate.verdict else ("✗", WRONG)
            pen.text((x + wide, y + PICTURE + 1), mark, fill=ink, font=_font(11), anchor="ra")
    return out


def grid(plates: Sequence[Plate], across: int, columns: int, scale: int) -> Image.Image:
    """Plates in rows of `columns`, the pictures of each in lines of `across`, each pixel `scale` x `scale`.

    Args:
        plates: all with pictures of one size.
    """
    columns = min(columns, len(plates))
    w, h = (side * scale for side in plates[0].pictures[0].size)
    lines = -(-max(len(plate.pictures) for plate in plates) // across)
    wide = max(across * (w + JOINT) - JOINT, PICTURE)
    texts = [_wrap(plate.caption, LETTERS * wide // PICTURE, LINES) for plate in plates]
    cell = lines * (h + JOINT) + max(map(len, texts)) * LINE + GUTTER
    out = _paper(GUTTER + columns * (wide + GUTTER), GUTTER + -(-len(plates) // columns) * cell)
    pen = ImageDraw.Draw(out)
    for i, (plate, text) in enumerate(zip(plates, texts, strict=True)):
        x, y = GUTTER + (i % columns) * (wide + GUTTER), GUTTER + (i // columns) * cell
        for k, picture in enumerate(plate.pictures):
            enlarged = picture.convert("RGB").resize((w, h), Image.Resampling.NEAREST)
            out.paste(enlarged, (x + (k % across) * (w + JOINT), y + (k // across) * (h + JOINT)))
        for k, line in enumerate(text):
            pen.text((x, y + lines * (h + JOINT) - 2 + k * LINE), line, fill=INK, font=_font(10))
    return out


def table(headings: Sequence[str], rows: Sequence[Plate]) -> Image.Image:
    """A row of pictures for each plate, its caption to the left; headings[k] stands above the k-th picture."""
    left = GUTTER + PICTURE + GUTTER
    out = _paper(left + len(headings) * (PICTURE + JOINT) + GUTTER, GUTTER + LINE + len(rows) * (PICTURE + JOINT) + 12)
    pen = ImageDraw.Draw(out)
    for k, heading in enumerate(headings):
        middle = left + k * (PICTURE + JOINT) + PICTURE // 2
        pen.text((middle, GUTTER - 6), heading, fill=PALE, font=_font(10), anchor="ma")
    for i, row in enumerate(rows):
        y = GUTTER + LINE + i * (PICTURE + JOINT)
        lines = _wrap(row.caption, LETTERS, PICTURE // LINE)
        first = y + (PICTURE - len(lines) * LINE) // 2
        for k, line in enumerate(lines):
            pen.text((GUTTER, first + k * LINE), line, fill=INK, font=_font(10))
        for k, picture in enumerate(row.pictures):
            out.paste(enlarged(picture), (left + k * (PICTURE + JOINT), y))
    return out


def strip(captions: Sequence[str], moments: Sequence[Moment]) -> Image.Image:
    """The denoising of pictures: for each a row of the picture so far, and below it one of what was expected of it."""
    rows = []
    for i, caption in enumerate(captions):
        rows.append(Plate([moment.so_far[i] for moment in moments], caption))
        rows.append(Plate([moment.expected[i] for moment in moments], "what the model expects it to become"))
    return table([moment.heading for moment in moments], rows)


def stacked(above: Image.Image, below: Image.Image) -> Image.Image:
    """One picture over another, on the sheets' paper."""
    out = _paper(max(above.width, below.width), above.height + below.height)
    out.paste(above, (0, 0))
    out.paste(below, (0, above.height))
    return out


def rasterised(figure: "Figure") -> Image.Image:
    """A figure of matplotlib in its own size, RGB."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=figure.dpi)
    return Image.open(drawn).convert("RGB")


def enlarged(picture: Image.Image) -> Image.Image:
    """RGB of PICTURE x PICTURE: small pictures keep their pixels visible, large ones shrink smoothly, and those that
    are not square lie in the middle of paper."""
    longer = max(picture.size)
    resampling = Image.Resampling.LANCZOS if longer > PICTURE else Image.Resampling.NEAREST
    width, height = (max(1, round(side * PICTURE / longer)) for side in picture.size)
    resized = picture.convert("RGB").resize((width, height), resampling)
    if resized.size == (PICTURE, PICTURE):
        return resized
    out = _paper(PICTURE, PICTURE)
    out.paste(resized, ((PICTURE - width) // 2, (PICTURE - height) // 2))
    return out


def _paper(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), PAPER)


def _wrap(text: str, letters: int, lines: int) -> list[str]:
    return textwrap.wrap(text, letters, max_lines=lines, placeholder=" …")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """A font that is the same everywhere."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size, layout_engine=ImageFont.Layout.BASIC)
