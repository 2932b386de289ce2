"""Draws docs/emoji.png with the project in the current folder, in which the recipe emoji was trained:

python docs/emoji_grid.py

Pairs of style and idea that training never saw, by lot, each beside what the artist drew; of sets alone that may be
shown with their makers named (docs/credits.md).
"""

from pathlib import Path

import torch

from darkroom import Pipeline
from darkroom.config.paths import PIPELINE, PREPARED
from darkroom.core.seeds import numpy_rng
from darkroom.core.tensors import save_png, to_pil
from darkroom.data.prepared import Prepared
from darkroom.view.sheet import Plate, sheet

DOCS = Path(__file__).parent
SEED, OF_EACH, COLUMNS = 0, 4, 4
SHARE_ALIKE = {"outlined"}  # OpenMoji: what shows it is under its licence
HEADING = "Never seen in training, by lot. left: the artist's own · right: drawn by the model"


def main() -> None:
    """Draw by lot."""
    novel = Prepared.open(PREPARED).split("novel")
    (styles,) = (head.classes for head in novel.info.heads if head.name == "style")
    column = [head.name for head in novel.info.heads].index("style")
    lots = numpy_rng(SEED, "emoji grid")
    rows = []
    for style, name in enumerate(styles):
        if name not in SHARE_ALIKE:
            its = (novel.labels[:, column] == style).nonzero().flatten().numpy()
            rows += sorted(lots.choice(its, OF_EACH, replace=False).tolist())
    captions = [novel.captions[row] for row in rows]
    drawn = Pipeline.from_pretrained(PIPELINE).text_to_image(captions, seeds=list(range(len(rows)))).tensor
    pairs = zip(novel.images(torch.tensor(rows)), drawn, captions, strict=True)
    plates = [Plate([to_pil(real), to_pil(ours)], caption) for real, ours, caption in pairs]
    save_png(DOCS / "emoji.png", sheet(plates, COLUMNS, HEADING))


if __name__ == "__main__":
    main()
