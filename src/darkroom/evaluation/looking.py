"""What a person who looks into a model asks for beyond its figures: which answers are confused, and which training
pictures the drawn ones come nearest to. For the run and its report; no output holds it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from darkroom.data.names import names_of
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation.alignment import Asked
from darkroom.evaluation.drawing import Drawn
from darkroom.evaluation.estimates import TooFewError
from darkroom.evaluation.judge import Judge
from darkroom.evaluation.judging import Judges, Validity
from darkroom.evaluation.memorisation import Neighbours, memorisation, show_neighbours
from darkroom.evaluation.report import as_json

WITH_NEIGHBOURS = 6  # drawn pictures that are shown beside training pictures


def confusions(judges: Sequence[Judge], drawn: Mapping[str, Drawn], validity: Validity) -> dict[str, Any]:
    """Of each split and attribute, how often what was asked for was read as what.

    {split: {attribute: {"classes": K names, "counts": K rows of K + 1, "real": likewise}}}: a row for each class that
    was asked for, a column for each that was read, and a last one for "not there"; `real` is what was read off the real
    pictures of the same captions. Readings of both judges are added. {} where the judges read no labels or cannot be
    believed, and for a model of which nothing is asked.
    """
    if not validity.valid or judges[0].kind != "classifier":
        return {}
    found: dict[str, Any] = {}
    for split, pictures in drawn.items():
        if not pictures.takes_prompts:
            continue
        readings = {"counts": _read(judges, pictures.pictures), "real": _read(judges, pictures.real)}
        found[split] = {
            head.name: {"classes": list(head.classes)}
            | {name: _counts(pictures.asked, read, i, len(head.classes)) for name, read in readings.items()}
            for i, head in enumerate(judges[0].heads)
        }
    return found


def _read(judges: Sequence[Judge], pictures: torch.Tensor) -> list[torch.Tensor]:
    """The nearest class of each attribute, by each judge: (N, H) each."""
    readings = (judge.read(pictures) for judge in judges)
    return [reading if reading.ndim == 2 else reading[:, :, 0] for reading in readings]


def _counts(asked_for: Asked, readings: Sequence[torch.Tensor], attribute: int, n: int) -> list[list[int]]:
    asked = asked_for.labels[:, attribute]
    rows = (asked_for.mentioned[:, attribute] & (asked >= 0)).nonzero().flatten()
    counted = torch.zeros(n * (n + 1), dtype=torch.int64)
    for reading in readings:
        seen = reading[rows, attribute].long()
        seen = torch.where(seen < 0, n, seen)
        counted += torch.bincount(asked[rows] * (n + 1) + seen, minlength=len(counted))
    counts: list[list[int]] = counted.view(n, n + 1).tolist()
    return counts


def nearest_training_pictures(
    judges: Judges, drawn: Drawn, train: PreparedSplit, folder: Path, validity: Validity
) -> tuple[dict[str, Any], Image.Image | None]:
    """The figures of `memorisation`, and the likeliest copies beside their neighbours: what they are, and a picture.

    {…, "pictures": of each, the likeliest first, {"asked": its caption, "distance": to its nearest training picture,
    "apart": from that to another, "nearest": [{"name", "caption"}, …]}}; {"reason": …} and no picture where the judges
    cannot be believed, or there are too few pictures.

    Args:
        folder: of `train` in the prepared data.
    """
    if not validity.valid:
        return {"reason": validity.reason}, None
    try:
        figures, found = memorisation(judges.judges, drawn, train, judges.seed, judges.resamples)
    except TooFewError as error:
        return {"reason": str(error)}, None
    pictures = [_neighbourhood(i, drawn, found, train, folder) for i in found.likeliest(WITH_NEIGHBOURS)]
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "neighbours.png"
        show_neighbours(drawn, found, train, WITH_NEIGHBOURS, file)
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    return as_json({**figures, "pictures": pictures}), picture


def _neighbourhood(i: int, drawn: Drawn, found: Neighbours, train: PreparedSplit, folder: Path) -> dict[str, Any]:
    """What is said of one drawn picture and its nearest training pictures."""
    rows = found.rows[i].tolist()
    return {
        "asked": drawn.asked.captions[i],
        "distance": float(found.distances[i, 0]),
        "apart": float(found.apart[i, 0]),
        "nearest": [
            {"name": name, "caption": train.captions[row]}
            for row, name in zip(rows, names_of(folder, rows), strict=True)
        ],
    }
