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
TEXT_COLUMNS, LINES = 20, 4  # a caption has at most so many letters a line, lines a picture
PAPER, INK = (250, 249, 246), (40, 40, 44)


def contact_sheet(split: PreparedSplit, path: Path | str, columns: int = 8, rows: int = 5) -> None:
    """Write a PNG of columns x rows pictures, evenly spread over the split, each with its caption below."""
    n = min(columns * rows, len(split))
    chosen = np.linspace(0, len(split) - 1, n).round().astype(int).tolist()
    pictures = split.images(chosen)
    columns = min(columns, n)
    texts = [textwrap.wrap(split.captions[i], TEXT_COLUMNS, max_lines=LINES, placeholder=" …") for i in chosen]
    cell = PICTURE + max(map(len, texts)) * LINE + GUTTER
    width = GUTTER + columns * (PICTURE + GUTTER)
    height = GUTTER + -(-n // columns) * cell
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # a font that is the same everywhere
    font = ImageFont.truetype(fonts / "DejaVuSans.ttf", 10, layout_engine=ImageFont.Layout.BASIC)
    shrinks = split.info.image_size > PICTURE
    for i in range(n):
        x = GUTTER + (i % columns) * (PICTURE + GUTTER)
        y = GUTTER + (i // columns) * cell
        picture = to_pil(pictures[i]).convert("RGB")
        how = Image.Resampling.LANCZOS if shrinks else Image.Resampling.NEAREST
        sheet.paste(picture.resize((PICTURE, PICTURE), how), (x, y))
        for k, line in enumerate(texts[i]):
            pen.text((x, y + PICTURE + 2 + k * LINE), line, fill=INK, font=font)
    save_png(path, sheet)
