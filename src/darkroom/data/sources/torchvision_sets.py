"""MNIST, Fashion-MNIST and CIFAR-10 in the folders torchvision keeps them in; torchvision itself only downloads."""

import io
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.data.head import Head
from darkroom.data.manifest import ROOT_VARIABLE, Files, Manifest
from darkroom.data.sources.base import Description, OutsideSource, Sample, Skipped
from darkroom.data.sources.captions import from_class

Arrays = tuple[npt.NDArray[np.uint8], list[int]]  # (N, H, W) or (N, H, W, 3), labels


@dataclass(frozen=True)
class Known:
    """A data set: its files by split, below the root, and its classes as captions say them."""

    files: dict[str, tuple[str, ...]]
    classes: tuple[str, ...]


def _idx(folder: str) -> dict[str, tuple[str, ...]]:
    kinds = {"test": "t10k", "train": "train"}
    return {s: tuple(f"{folder}/raw/{k}-{p}-ubyte" for p in ("images-idx3", "labels-idx1")) for s, k in kinds.items()}


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GARMENTS = (
    "t-shirt",
    "pair of trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_FILES = {
    "test": ("cifar-10-batches-py/test_batch",),
    "train": tuple(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)),
}
DATASETS = {
    "MNIST": Known(_idx("MNIST"), DIGITS),
    "FashionMNIST": Known(_idx("FashionMNIST"), GARMENTS),
    "CIFAR10": Known(CIFAR_FILES, THINGS),
}


class TorchvisionSource(OutsideSource):
    """A labelled data set of torchvision's, its official test split kept."""

    labelled = True
    suffixes = ()

    kind: Literal["torchvision"]
    """`root` is what torchvision calls root too."""

    name: Literal["MNIST", "FashionMNIST", "CIFAR10"]
    """Which data set, as torchvision calls it."""

    download: bool
    """Whether to fetch files that are missing into the root."""

    caption: str
    """Of each picture; {label} in it is the class, such as `a handwritten {label}`."""

    def reader(self, manifest: Manifest | None) -> "Torchvision":
        """See `OutsideSource.reader`."""
        return Torchvision(self.name, self.root, self.caption, self.download, manifest)


class Torchvision:
    """One of DATASETS, its official test split kept.

    root: the folder torchvision calls root, relative to the data root, or absolute. caption: template with {label},
    such as "a handwritten {label}". download: fetch missing files into the root.
    """

    def __init__(self, name: str, root: str, caption: str, download: bool, manifest: Manifest | None = None) -> None:
        if name not in DATASETS:
            raise DarkroomError(f"prepare_data.source.name = {name!r}: choose from {', '.join(DATASETS)}")
        self.name, self.known, self.caption = name, DATASETS[name], caption
        files = tuple(sorted(file for split in self.known.files.values() for file in split))
        self.files = Files(root, manifest, names=files)
        missing = [file for file in files if not self.files.has(file)]
        if missing and download:
            self._download()
        elif missing:
            raise DarkroomError(
                f"{printable(self.files.root / missing[0])}: no such file; set {ROOT_VARIABLE} to the folder holding "
                f"{name}, or have it fetched with prepare_data.source.download: true"
            )

    def _download(self) -> None:
        from darkroom.data.sources.torchvision_import import torchvision  # which loads torch

        datasets = torchvision("datasets")
        try:
            getattr(datasets, self.name)(str(self.files.root), download=True)
        except (OSError, RuntimeError) as error:
            raise DarkroomError(
                f"{self.name}: could not be downloaded ({error}); try again, or put its files into {self.files.root}"
            ) from None

    @cached_property
    def _splits(self) -> dict[str, Arrays]:
        read = _read_cifar if self.name == "CIFAR10" else _read_idx
        return {split: read(self.files, names) for split, names in self.known.files.items()}

    @property
    def description(self) -> Description:
        size = sum(len(labels) for _, labels in self._splits.values())
        return Description(f"torchvision {self.name}", size, (Head("label", self.known.classes),))

    def __iter__(self) -> Iterator[Sample | Skipped]:
        captions = [from_class(self.caption, label) for label in self.known.classes]
        for split, (images, labels) in self._splits.items():
            for i, label in enumerate(labels):
                path = f"{split}/{i:05d}.png"
                if 0 <= label < len(captions):
                    yield Sample(images[i], path, captions[label], split, (label,), (True,))
                else:
                    yield Skipped(path, f"class {label} is none of the {len(captions)}")


def _read_idx(files: Files, names: tuple[str, ...]) -> Arrays:
    images, labels = (_parse_idx(name, files.read(name), dims) for name, dims in zip(names, (3, 1), strict=True))
    if len(images) != len(labels):
        raise DarkroomError(f"{names[0]}: {len(images)} images but {len(labels)} labels; fetch the files again")
    return images, labels.tolist()


def _parse_idx(name: str, data: bytes, dims: int) -> npt.NDArray[np.uint8]:
    """The IDX format: 0, 0, 8 (unsigned bytes), number of dimensions; each dimension as four bytes, big end first."""
    start = 4 + 4 * dims
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if data[:4] != bytes((0, 0, 8, dims)) or len(data) != start + math.prod(shape):
        raise DarkroomError(f"{name}: not a whole IDX file of {dims} dimensions; fetch it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


class _ArraysOnly(pickle.Unpickler):
    """CIFAR-10 is published as pickles. This reads them without running anything: it can build arrays, nothing else."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.ALLOWED:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name} is not an array")


def _read_cifar(files: Files, names: tuple[str, ...]) -> Arrays:
    images, labels = [], []
    for name in names:
        try:
            batch = _ArraysOnly(io.BytesIO(files.read(name)), encoding="latin1").load()
            pixels = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            found = [int(label) for label in batch["labels"]]
        except Exception as error:  # what is not a pickle, or a torn one, fails in many ways
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DarkroomError(f"{name}: not a CIFAR-10 batch ({reason}); fetch it again") from None
        if len(pixels) != len(found):
            raise DarkroomError(f"{name}: {len(pixels)} images but {len(found)} labels; fetch it again")
        images.append(pixels)
        labels += found
    return np.ascontiguousarray(np.concatenate(images)), labels
