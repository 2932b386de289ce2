"""Scenes with a colour that the default recipe has no word for, as a captioned folder, for the recipe scenes-lora.

    python recipes/new_colour_pictures.py [FOLDER] [NAME R G B]

Scenes are those of the default recipe; one thing in each is given the new colour, in the picture and in the caption.
Training and validation show nothing else: 50 and 50 pictures. `novel` holds 1000 more with the new colour, for which
pictures are drawn at the end; `test` 1000 scenes of the default recipe as they are, to show what became of the other
colours. Only the judges, who read what is drawn, learn from half of these. By default the colour is rose.

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

NAME, COLOUR = "rose", (0.90, 0.05, 0.50)
OUT, SIZE, SEED = "new-colour", 32, 0
TOKENS = 18  # of a caption between its beginning and end: each word is one, and each letter of the new one
COUNTS = {"train": 50, "validation": 50, "test": 1000, "novel": 1000}
TAKEN_FROM = {"train": ("train", 0), "validation": ("validation", 0), "test": ("test", 0), "novel": ("test", 1000)}
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


def rows(folder: Path, name: str, colour: Rgb) -> Iterator[dict[str, str]]:
    """Draw every picture below `folder`; its line of metadata.csv."""
    source = Scenes(20_000, 1000, 2500, 500, SEED, SIZE)
    for split, count in COUNTS.items():
        taken, first = TAKEN_FROM[split]
        scenes, whiches = list[Scene](), list[int | None]()
        for i in itertools.count(first):
            scene, which = source.scene(taken, i), None
            if split != "test":
                scene, which = recoloured(scene, name, colour, split, i)
                if len(scene.caption.split()) + len(name) - 1 > TOKENS:
                    continue
            scenes.append(scene)
            whiches.append(which)
            if len(scenes) == count:
                break
        (folder / split).mkdir()
        for i, (scene, which, pixels) in enumerate(zip(scenes, whiches, source.draw(scenes), strict=True)):
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
    print(f"{folder}: {', '.join(f'{count} {split}' for split, count in COUNTS.items())}; such as {lines[0]['text']!r}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(*map(Path, arguments[:1]), *arguments[1:2], *map(float, arguments[2:5]))
