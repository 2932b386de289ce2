"""CIFAR-10 as a folder of photographs, for the recipe photos-ddpm-small: SPLIT/CLASS/NUMBER.png, 32 x 32.

    DARKROOM_DATA=FOLDER python recipes/cifar10_photos.py [--limit N] [--out FOLDER]

Reads cifar-10-batches-py, as it is published and as torchvision keeps it, below DARKROOM_DATA. Where you have
CIFAR-10 as WebDataset shards, pictures with captions that end in the class, --webdataset says in which folder there.
"""

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from darkroom.config.paths import RAW
from darkroom.core.artifact import atomic_path
from darkroom.core.errors import DarkroomError
from darkroom.data.images import conform
from darkroom.data.sources.base import Sample, Skipped
from darkroom.data.sources.torchvision_sets import DATASETS, Torchvision
from darkroom.data.sources.webdataset import WebDataset

OUT = RAW / "cifar10-photos"
SIZE = 32


def write(samples: Iterable[Sample | Skipped], out: Path, limit: int | None) -> Counter[str]:
    """Write the samples that belong to a split, at most `limit` of each, to `out`, which appears whole.

    Returns:
        how many were written, by split.

    Raises:
        DarkroomError: there are none, a caption ends in none of CIFAR-10's classes, or `out` exists.
    """
    if out.exists():
        raise DarkroomError(f"{out}: exists; remove it, or name another folder with --out")
    written = Counter[str]()
    with atomic_path(out) as folder:
        for sample in samples:
            if isinstance(sample, Skipped) or sample.split is None or written[sample.split] == limit:
                continue
            place = folder / sample.split / _class_of(sample) / f"{written[sample.split]:05d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_pixels(sample)).save(place)
            written[sample.split] += 1
        if not written:
            raise DarkroomError("no pictures of a split; the names of shards must begin with train- and test-")
    return written


def _class_of(sample: Sample) -> str:
    name = sample.caption.split()[-1]
    if name not in DATASETS["CIFAR10"].classes:
        raise DarkroomError(f"{sample.path}: the caption {sample.caption!r} ends in none of CIFAR-10's classes")
    return name


def _pixels(sample: Sample) -> npt.NDArray[np.uint8]:
    return conform(sample.picture(), SIZE, 3, "crop")


def main() -> None:
    """Read the command line, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=".", help="what torchvision calls root, below DARKROOM_DATA")
    parser.add_argument("--webdataset", metavar="FOLDER", help="read the shards in this folder below DARKROOM_DATA")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--limit", type=int, help="the most pictures of a split")
    given = parser.parse_args()
    if given.limit is not None and given.limit < 1:
        parser.error("--limit: give 1 or more")
    try:
        source = (
            WebDataset(given.webdataset) if given.webdataset else Torchvision("CIFAR10", given.root, "{label}", False)
        )
        written = write(source, given.out, given.limit)
    except DarkroomError as error:
        raise SystemExit(f"cifar10_photos: {error}") from None
    print(f"{given.out}: {', '.join(f'{n} {split}' for split, n in sorted(written.items()))}")


if __name__ == "__main__":
    main()
