"""A contact sheet: pictures from all over a split with their captions, to see at a glance what the data are."""

from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.core.tensors import save_png, to_pil
from darkroom.data.prepared import PreparedSplit
from darkroom.view.sheet import Plate, sheet, table

NO_BREAK = "\u00a0"


def contact_sheet(split: PreparedSplit, path: Path | str, columns: int = 8, rows: int = 5) -> None:
    """Write a PNG of columns x rows pictures, evenly spread over the split, each with its caption below.

    With buckets, a row for each of them, with how many pictures it has and how much of them was cut off.
    """
    if split.info.buckets:
        save_png(path, _by_bucket(split, columns))
        return
    n = min(columns * rows, len(split))
    chosen = np.linspace(0, len(split) - 1, n).round().astype(int).tolist()
    plates = [Plate([to_pil(x)], split.captions[i]) for i, x in zip(chosen, split.images(chosen), strict=True)]
    save_png(path, sheet(plates, columns))


def _by_bucket(split: PreparedSplit, columns: int) -> Image.Image:
    known, rows = {of.size: of for of in split.info.buckets}, []
    for size, run in zip(split.sizes, split.runs, strict=True):
        chosen = np.linspace(run.start, run.stop - 1, min(columns, len(run))).round().astype(int).tolist()
        of = known[size]
        lines = f"{of.height} x {of.width} pixels:", f"{of.pictures:,} pictures,", f"{of.cropped_share:.1%} cut off"
        said = " ".join(line.replace(" ", NO_BREAK) for line in lines)
        rows.append(Plate([to_pil(x) for x in split.images(chosen)], said))
    return table(["" for _ in range(columns)], rows)
