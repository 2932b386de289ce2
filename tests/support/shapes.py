"""A captioned folder of pictures of seven shapes, each with three phrasings of what it shows."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ((96, 96), (120, 90), (90, 120), (120, 80), (80, 120), (128, 72), (72, 128))  # width, height
COLOURS = {"red": (214, 60, 52), "green": (60, 160, 84), "blue": (52, 92, 200), "yellow": (232, 196, 64)}
THINGS = ("disc", "box")


def write_shapes(folder: Path, n: int, phrasings: int = 3) -> None:
    """n pictures, each of the shapes in turn; a frame runs along their edges, so that what is cut off is missed."""
    folder.mkdir(parents=True, exist_ok=True)
    names, records = list(COLOURS), []
    for i in range(n):
        width, height = SHAPES[i % len(SHAPES)]
        dice = np.random.default_rng(i)
        colour, thing = names[i // len(SHAPES) % len(names)], THINGS[i // len(SHAPES) // len(names) % len(THINGS)]
        ground = tuple(int(x) for x in dice.integers(190, 250, 3))
        picture = Image.new("RGB", (width, height), ground)
        pen = ImageDraw.Draw(picture)
        pen.rectangle((0, 0, width - 1, height - 1), outline=(40, 40, 44), width=3)
        radius = int(dice.integers(12, 26))
        x, y = (int(dice.integers(radius + 4, side - radius - 3)) for side in (width, height))
        box = (x - radius, y - radius, x + radius, y + radius)
        (pen.ellipse if thing == "disc" else pen.rectangle)(box, fill=COLOURS[colour])
        picture.save(folder / f"{i:04d}.png")
        said = [
            f"a {colour} {thing}",
            f"{thing}, {colour}, framed",
            f"There is a frame. In it lies a {thing} that is {colour}.",
        ]
        records.append({"file_name": f"{i:04d}.png", "text": said[:phrasings]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
