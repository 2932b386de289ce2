"""A contact sheet: pictures from all over a split with their captions, to see at a glance what the data are."""

from pathlib import Path

import numpy as np

from darkroom.core.tensors import save_png, to_pil
from darkroom.data.prepared import PreparedSplit
from darkroom.view.sheet import Plate, sheet


def contact_sheet(split: PreparedSplit, path: Path | str, columns: int = 8, rows: int = 5) -> None:
    """Write a PNG of columns x rows pictures, evenly spread over the split, each with its caption below."""
    n = min(columns * rows, len(split))
    chosen = np.linspace(0, len(split) - 1, n).round().astype(int).tolist()
    plates = [Plate([to_pil(x)], split.captions[i]) for i, x in zip(chosen, split.images(chosen), strict=True)]
    save_png(path, sheet(plates, columns))
