"""Files in MNIST's format."""

import struct
from pathlib import Path

import numpy as np

from darkroom.data.sources.torchvision_sets import DATASETS


def write_idx(root: Path, name: str = "MNIST", train: int = 60, test: int = 8) -> dict[str, np.ndarray]:
    """The files of MNIST or Fashion-MNIST with noise for pictures, which are returned; picture i has label i % 10."""
    images = {}
    for split, (pictures, labels) in DATASETS[name].files.items():
        count = train if split == "train" else test
        images[split] = np.random.default_rng(len(split)).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (root / pictures).parent.mkdir(parents=True, exist_ok=True)
        (root / pictures).write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + images[split].tobytes())
        (root / labels).write_bytes(struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count)))
    return images
