"""MNIST and its kin from their files."""

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from darkroom.config.sections import Preparation
from darkroom.core.errors import DarkroomError
from darkroom.data.manifest import scan
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.sources import torchvision_import
from darkroom.data.sources.torchvision_sets import DATASETS, Torchvision

How = Callable[..., Preparation]
Write = Callable[..., dict[str, np.ndarray]]


def digits(root: str = "set", manifest: Any = None) -> Torchvision:
    return Torchvision("MNIST", root, "a handwritten {label}", False, manifest)


def test_mnist_is_read_padded_and_captioned(folder: Path, how: How, write_idx: Write) -> None:
    images = write_idx(folder)
    source = digits()
    prepare(source, folder.parent / "out", how(image_size=32, channels=1, resize="pad"))
    data = Prepared.open(folder.parent / "out")
    test = data.split("test")
    assert data.info.splits["test"] == 8
    assert data.info.splits["train"] + data.info.splits["validation"] == 60
    assert np.array_equal(test.images()[:, 0, 2:30, 2:30], images["test"])
    assert test.captions[7] == "a handwritten seven"
    assert test.labels[:, 0].tolist() == list(range(8))


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("root", ["set", "nowhere"])
def test_missing_files_are_named_with_the_remedy_and_nothing_is_fetched(
    name: str, root: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torchvision_import, "torchvision")
    first, *others = sorted(file for split in DATASETS[name].files.values() for file in split)
    remedy = f"DARKROOM_DATA to the folder holding {name}, or have it fetched with prepare_data.source.download: true"
    with pytest.raises(DarkroomError) as caught:
        Torchvision(name, root, "{label}", False)
    assert str(caught.value) == f"{folder.parent / root / first}: no such file; set {remedy}"
    for present in (first, *others[:-1]):
        (folder.parent / root / present).parent.mkdir(parents=True, exist_ok=True)
        (folder.parent / root / present).touch()
    with pytest.raises(DarkroomError, match=rf"{others[-1]}: no such file; set DARKROOM_DATA"):
        Torchvision(name, root, "{label}", False)


def test_download_only_if_asked(folder: Path, write_idx: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(root: str, download: bool) -> None:
        asked.append((root, download))
        write_idx(Path(root))

    monkeypatch.setattr(torchvision_import, "torchvision", lambda name: SimpleNamespace(MNIST=fetch))
    for _ in range(2):
        source = Torchvision("MNIST", "set", "{label}", True)
    assert asked == [(str(folder), True)]
    assert source.description.size == 68

    def fail(root: str, download: bool) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision_import, "torchvision", lambda name: SimpleNamespace(MNIST=fail))
    with pytest.raises(DarkroomError, match=r"MNIST: could not be downloaded \(no network\)"):
        Torchvision("MNIST", "other", "{label}", True)


@pytest.mark.parametrize("harm", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"", lambda d: b"\0\0\x09" + d[3:]])
def test_damaged_files_are_errors(folder: Path, write_idx: Write, harm: Callable[[bytes], bytes]) -> None:
    write_idx(folder)
    path = folder / DATASETS["MNIST"].files["train"][0]
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(DarkroomError, match=r"train-images-idx3-ubyte: not a whole IDX file"):
        _ = digits().description


def test_files_are_verified(folder: Path, write_idx: Write) -> None:
    write_idx(folder)
    manifest = scan(digits().files, folder.parent / "mnist.json")
    assert len(list(digits("set", manifest))) == 68
    assert len(manifest.files) == 4
    path = folder / DATASETS["MNIST"].files["test"][1]
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(DarkroomError, match=r"t10k-labels-idx1-ubyte: has md5"):
        list(digits("set", manifest))


def cifar(folder: Path, batch: object) -> Torchvision:
    for names in DATASETS["CIFAR10"].files.values():
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return Torchvision("CIFAR10", "set", "a photo of a {label}", False)


def test_cifar_batches(folder: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    samples: list[Any] = list(cifar(folder, {"data": data, "labels": [0, 3, 9, 10], "filenames": ["a", "b", "c", "d"]}))
    assert len(samples) == 24
    assert np.array_equal(samples[1].image, data[1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert [s.caption for s in samples[:3]] == ["a photo of an airplane", "a photo of a cat", "a photo of a truck"]
    assert samples[3].reason == "class 10 is none of the 10"


class Harmful:
    """A pickle that runs something when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('ran')",))


class Sneaky:
    """A pickle that calls a function of NumPy, and would give a good batch."""

    def __reduce__(self) -> tuple[object, tuple[tuple[int, int]]]:
        return (np.zeros, ((2, 3072),))


@pytest.mark.parametrize(
    "batch", [Harmful(), {"data": Sneaky(), "labels": [0, 0]}, {"data": [1]}, {"labels": [1]}, [], 3]
)
def test_a_batch_can_hold_nothing_but_arrays(folder: Path, batch: object) -> None:
    with pytest.raises(DarkroomError, match="test_batch: not a CIFAR-10 batch"):
        list(cifar(folder, batch))
