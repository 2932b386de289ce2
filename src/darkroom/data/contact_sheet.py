"""A contact sheet: the first pictures of a split with their captions, to see at a glance what the data are."""

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from darkroom.core.tensors import save_png, to_pil
from darkroom.data.prepared import PreparedSplit

PICTURE = 128  # pixels on the sheet
GUTTER = 16
LINE = 14
LINES = 4
TEXT_COLUMNS = 20
PAPER, INK = (250, 249, 246), (40, 40, 44)


def contact_sheet(split: PreparedSplit, path: Path | str, columns: int = 8, rows: int = 5) -> None:
    """Write a PNG of columns x rows pictures, evenly spread over the split, each with its caption below."""
    n = min(columns * rows, len(split))
    chosen = np.linspace(0, len(split) - 1, n).round().astype(int).tolist()
    pictures = split.images(chosen)
    columns = min(columns, n)
    width = GUTTER + columns * (PICTURE + GUTTER)
    height = GUTTER + -(-n // columns) * (PICTURE + LINES * LINE + GUTTER)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # a font that is the same everywhere
    font = ImageFont.truetype(fonts / "DejaVuSans.ttf", 10, layout_engine=ImageFont.Layout.BASIC)
    shrinks = split.info.image_size > PICTURE
    for i, index in enumerate(chosen):
        x = GUTTER + (i % columns) * (PICTURE + GUTTER)
        y = GUTTER + (i // columns) * (PICTURE + LINES * LINE + GUTTER)
        picture = to_pil(pictures[i]).convert("RGB")
        how = Image.Resampling.LANCZOS if shrinks else Image.Resampling.NEAREST
        sheet.paste(picture.resize((PICTURE, PICTURE), how), (x, y))
        lines = textwrap.wrap(_caption(split, index), TEXT_COLUMNS, max_lines=LINES, placeholder=" …")
        for k, line in enumerate(lines):
            pen.text((x, y + PICTURE + 2 + k * LINE), line, fill=INK, font=font)
    save_png(path, sheet)


def _caption(split: PreparedSplit, index: int) -> str:
    """The caption; without one, the class; without either, nothing."""
    if split.captions[index] or not split.info.class_labelled:
        return split.captions[index]
    return split.info.heads[0].classes[int(split.labels[index, 0])]
