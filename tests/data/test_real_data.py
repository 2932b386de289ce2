"""Real data sets, where DARKROOM_DATA names them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from darkroom.config.sections import Preparation
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.sources.torchvision_import import torchvision
from darkroom.data.sources.torchvision_sets import Torchvision
from darkroom.data.sources.webdataset import WebDataset

How = Callable[..., Preparation]


def test_fashion_mnist_is_what_torchvision_reads(real_data: Path, tmp_path: Path, how: How) -> None:
    source = Torchvision("FashionMNIST", ".", "a picture of a {label}", False)
    info = prepare(source, tmp_path / "out", how(image_size=32, channels=1, resize="pad", max_bad_fraction=0))
    theirs = torchvision("datasets").FashionMNIST(str(real_data), train=False)
    ours = Prepared.open(tmp_path / "out").split("test")
    assert info.splits["test"] == len(theirs) == 90
    assert np.array_equal(ours.images()[:, 0, 2:30, 2:30], theirs.data)
    assert ours.labels[:, 0].tolist() == theirs.targets.tolist()


def test_mnist_is_complete(real_data: Path) -> None:
    samples = list(Torchvision("MNIST", ".", "a handwritten {label}", False))
    assert [s.split for s in samples].count("test") == 10_000
    assert len(samples) == 70_000
    assert (samples[0].caption, samples[10_000].caption) == ("a handwritten seven", "a handwritten five")


def test_captioned_photographs_in_shards(real_data: Path, tmp_path: Path, how: How) -> None:
    some = tmp_path / "some"
    some.mkdir()
    for shard in ("test-0000.tar", "train-0000.tar"):
        (some / shard).symlink_to(real_data.absolute() / "cifar10" / shard)
    info = prepare(WebDataset(str(some)), tmp_path / "out", how(image_size=32, limit=200, max_bad_fraction=0))
    assert info.splits == {"test": 200, "train": 200, "validation": 200}
    captions = Prepared.open(tmp_path / "out").split("train").captions
    assert all(c.startswith(("a photo of a ", "a photo of an ")) for c in captions)
    assert len(set(captions)) == 10
