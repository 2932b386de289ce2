"""Scenes with a colour that the default recipe has no word for, as a captioned folder, for the recipe scenes-lora.

    python recipes/new_colour_pictures.py [FOLDER] [NAME R G B]

Scenes are those of the default recipe; in the new ones one thing is given the new colour, in the picture and in the
caption. Training shows 50 of them, each four times, and beside them 300 scenes as they are, of those that the base was
trained on: without these it forgets some of what it knew (prior preservation, as in DreamBooth, Ruiz et al. 2022,
arXiv:2208.12242). Validation has 50 and 50. `novel` holds 1000 more with the new colour, for which pictures are drawn
at the end; `test` 1000 scenes as they are, to show what became of the other colours. Only the judges, who read what is
drawn, learn from these, each from half of them.

By default the colour is lilac, between the base's purple and pink: it has to be one that the base's autoencoder, which
saw eight colours, can draw. Of fifteen that were tried, what it makes of lilac is off by .05 of the range at the
median, where the next colour that it knows is .26 away; of rose (0.90, 0.05, 0.50) by .13. Gold (1.00, 0.70, 0.05) it
draws to .03, but its orange and yellow are only .18 away.

The base's tokenizer reads a word that no caption had letter by letter, and its text encoder sees 20 tokens: scenes
whose caption would be cut are left out, and a name of few letters leaves more of them.
"""

import csv
import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.core.artifact import atomic_path
from darkroom.core.seeds import numpy_rng
from darkroom.data.manifest import data_root
from darkroom.data.sources.scenes import COLOR_JITTER, COLORS, HEADS, Scene, Scenes
from darkroom.data.sources.scenes_drawing import Rgb

NAME, COLOUR = "lilac", (0.75, 0.30, 0.75)
OUT, SIZE, SEED = "new-colour", 32, 0
TOKENS = 18  # of a caption between its beginning and end: each word is one, and each letter of the new one
COUNTS = {  # of scenes with the new colour, and as they are
    "train": (50, 300),
    "validation": (50, 50),
    "test": (0, 1000),
    "novel": (1000, 0),
}
TIMES = {"train": 4}  # that each scene with the new colour is there
TAKEN_FROM = {  # a split of the default recipe, and the first scene of either kind
    "train": ("train", 0, 1000),
    "validation": ("validation", 0, 500),
    "test": ("test", 1000, 0),
    "novel": ("test", 1000, 0),
}
LABELS = ("layout", "shape", "color", "other_shape", "other_color")
OF_HEADS = ("layout", "first.shape", "first.color", "second.shape", "second.color")
ABSENT = "none"


def recoloured(scene: Scene, name: str, colour: Rgb, *keys: str | int) -> tuple[Scene, int]:
    """The scene with one of its things, at random, in the new colour, and which one that is."""
    rng = numpy_rng(SEED, "new colour", *keys)
    which = int(rng.integers(len(scene.things)))
    labels = {head.name: label for head, label in zip(HEADS, scene.labels, strict=True)}
    first = ("first", "second")[which]
    old, shape = list(COLORS)[labels[f"{first}.color"]], shape_of(labels[f"{first}.shape"])
    things = list(scene.things)
    things[which] = replace(things[which], rgb=jittered(colour, rng))
    caption = scene.caption.replace(f"an {old} {shape}", f"a {name} {shape}").replace(
        f"{old} {shape}", f"{name} {shape}"
    )
    return replace(scene, things=tuple(things), caption=caption), which


def jittered(colour: Rgb, rng: np.random.Generator) -> Rgb:
    """The colour of one thing."""
    r, g, b = (float(min(max(c + COLOR_JITTER * rng.uniform(-1, 1), 0), 1)) for c in colour)
    return r, g, b


def shape_of(label: int) -> str:
    """The name of a shape."""
    return next(head for head in HEADS if head.name == "first.shape").classes[label]


def classes_of(scene: Scene, which: int | None, name: str) -> list[str]:
    """What the scene shows, for each of LABELS; which: of its things that has the new colour."""
    labels = {head.name: (label, head.classes) for head, label in zip(HEADS, scene.labels, strict=True)}
    found = [classes[label] if label >= 0 else ABSENT for label, classes in (labels[one] for one in OF_HEADS)]
    if which is not None:
        found[2 + 2 * which] = name
    return found


def scenes_of(source: Scenes, split: str, name: str, colour: Rgb) -> Iterator[tuple[Scene, int | None]]:
    """The scenes of a split, and which thing of each has the new colour."""
    (new, plain), (taken, first, first_plain) = COUNTS[split], TAKEN_FROM[split]
    recoloured_ones = (recoloured(source.scene(taken, i), name, colour, split, i) for i in itertools.count(first))
    short = (one for one in recoloured_ones if len(one[0].caption.split()) + len(name) - 1 <= TOKENS)
    yield from list(itertools.islice(short, new)) * TIMES.get(split, 1)
    for i in range(first_plain, first_plain + plain):
        yield source.scene(taken, i), None


def rows(folder: Path, name: str, colour: Rgb) -> Iterator[dict[str, str]]:
    """Draw every picture below `folder`; its line of metadata.csv."""
    source = Scenes(20_000, 1000, 2500, 500, SEED, SIZE)
    for split in COUNTS:
        found = list(scenes_of(source, split, name, colour))
        (folder / split).mkdir()
        drawn = source.draw([scene for scene, _ in found])
        for i, ((scene, which), pixels) in enumerate(zip(found, drawn, strict=True)):
            file = f"{split}/{i:04d}.png"
            Image.fromarray(pixels).save(folder / file)
            classes = dict(zip(LABELS, classes_of(scene, which, name), strict=True))
            yield {"file_name": file, "text": scene.caption, "split": split, **classes}


def main(folder: Path | None = None, name: str = NAME, *rgb: float) -> None:
    """Write the folder, whole or not at all."""
    folder = folder or data_root() / OUT
    colour = (float(rgb[0]), float(rgb[1]), float(rgb[2])) if rgb else COLOUR
    with atomic_path(folder) as beside:
        beside.mkdir(parents=True)
        lines = list(rows(beside, name, colour))
        with (beside / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ["file_name", "text", "split", *LABELS])
            table.writeheader()
            table.writerows(lines)
    written = ", ".join(f"{new} with it and {plain} as they are for {split}" for split, (new, plain) in COUNTS.items())
    print(f"{folder}: {written}; such as {lines[0]['text']!r}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(*map(Path, arguments[:1]), *arguments[1:2], *map(float, arguments[2:5]))
