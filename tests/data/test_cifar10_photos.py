"""recipes/cifar10_photos.py: CIFAR-10 as an image folder whose official splits are kept."""

import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from darkroom.core.errors import DarkroomError
from darkroom.data.sources.base import Sample
from darkroom.data.sources.image_folder import ImageFolder
from darkroom.data.sources.torchvision_sets import DATASETS, THINGS, Torchvision

SCRIPT = Path(__file__).parents[2] / "recipes" / "cifar10_photos.py"


@pytest.fixture
def cifar(folder: Path) -> Torchvision:
    """Batches of three noise pictures, of the first classes."""
    for split, names in DATASETS["CIFAR10"].files.items():
        for i, name in enumerate(names):
            pixels = np.random.default_rng([len(split), i]).integers(0, 256, (3, 3072), dtype=np.uint8)
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [0, 1, 9]}, protocol=2))
    return Torchvision("CIFAR10", "set", "a photo of a {label}", False)


@pytest.mark.parametrize(("limit", "counts"), [(None, {"train": 15, "test": 3}), (2, {"train": 2, "test": 2})])
def test_the_pictures_and_their_splits_and_classes_are_those_of_the_source(
    limit: int | None, counts: dict[str, int], cifar: Torchvision, folder: Path, load: Callable[[Path], ModuleType]
) -> None:
    script = load(SCRIPT)
    assert script.write(cifar, folder.parent / "photos", limit) == counts
    photos = ImageFolder("photos", "a photo of a {label}")
    assert set(photos.classes) <= set(THINGS)
    found = [sample for sample in photos if isinstance(sample, Sample)]
    assert {split: sum(sample.split == split for sample in found) for split in counts} == counts
    expected = {
        (sample.split, np.asarray(sample.image).tobytes()): sample.caption
        for sample in cifar
        if isinstance(sample, Sample)
    }
    for sample in found:
        pixels = np.asarray(Image.open(photos.files.root / sample.path))
        assert expected[sample.split, pixels.tobytes()] == sample.caption


def test_it_says_what_is_in_its_way(cifar: Torchvision, folder: Path, load: Callable[[Path], ModuleType]) -> None:
    script, black = load(SCRIPT), np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(DarkroomError, match="set: exists; remove it, or name another folder with --out"):
        script.write(cifar, folder, None)
    with pytest.raises(DarkroomError, match="the caption 'a photo of a spoon' ends in none of CIFAR-10's classes"):
        script.write([Sample(black, "x.png", "a photo of a spoon", "train")], folder.parent / "photos", None)
    with pytest.raises(DarkroomError, match="no pictures of a split"):
        script.write([Sample(black, "x.png", "a photo of a dog")], folder.parent / "photos", None)
    assert not (folder.parent / "photos").exists()
