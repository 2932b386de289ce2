"""Decoded pictures in a file, until all of a source are there: PNG files end to end, and what is known of each.

An uncompressed .npz of `png` (uint8), `ends` (int64: 0, and where each PNG ends) and `items` (JSON, ASCII).
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from darkroom.data.decoded import Decoded
from darkroom.data.png import Encoded, encode_png, png_pixels
from darkroom.data.prepared_writer import Row
from darkroom.data.sources.base import Skipped


def write_decoded(path: Path, items: list[Decoded | Skipped]) -> None:
    """Equal items give equal bytes."""
    pngs: list[bytes] = []
    described: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, Skipped):
            described.append({"file": item.file, "reason": item.reason, "picture": item.picture})
            continue
        first = item.rows[0]
        encoded = first.encoding()
        pngs.append(encoded.png)
        described.append(
            {
                "path": first.path,
                "captions": [row.caption for row in item.rows],
                "labels": first.labels,
                "mentioned": first.mentioned,
                "split": item.split,
                "fingerprint": item.fingerprint.hex(),
                "total": encoded.total,
                "squares": encoded.squares,
                "thumbnail": encoded.thumbnail.hex(),
                "image": item.image is not None,
                "bucket": first.bucket,
                "cropped": first.cropped,
            }
        )
        if item.image is not None:
            pngs.append(encode_png(np.asarray(item.image)))
    ends = np.cumsum([0, *map(len, pngs)], dtype=np.int64)
    text = json.dumps(described, ensure_ascii=True).encode()
    with path.open("wb") as file:
        np.savez(
            file,
            ends=ends,
            png=np.frombuffer(b"".join(pngs), np.uint8),
            items=np.frombuffer(text, np.uint8),
        )


def read_decoded(path: Path) -> list[Decoded | Skipped]:
    """The same items; rows come without pixels, which their PNG holds."""
    with np.load(path, allow_pickle=False) as file:
        png, ends = file["png"].tobytes(), file["ends"].tolist()
        described = json.loads(file["items"].tobytes())
    pngs = (png[start:end] for start, end in pairwise(ends))
    found: list[Decoded | Skipped] = []
    for known in described:
        if "reason" in known:
            found.append(Skipped(known["file"], known["reason"], known["picture"]))
            continue
        encoded = Encoded(next(pngs), tuple(known["total"]), tuple(known["squares"]), bytes.fromhex(known["thumbnail"]))
        labels, mentioned = tuple(known["labels"]), tuple(known["mentioned"])
        of_bucket = {"bucket": known["bucket"], "cropped": known["cropped"]}
        rows = [
            Row(None, known["path"], text, labels, mentioned, encoded=encoded, **of_bucket)
            for text in known["captions"]
        ]
        image = png_pixels(next(pngs)) if known["image"] else None
        found.append(Decoded(image, rows, known["split"], bytes.fromhex(known["fingerprint"])))
    return found
