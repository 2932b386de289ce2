"""Pictures, folders and sources to try the data layer on."""

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.config.sections import Preparation
from darkroom.data.head import Head
from darkroom.data.sources.base import Description, Sample, Skipped
from tests.support.settings import preparation


def pixels(seed: int, size: int = 16) -> np.ndarray:
    """Noise, uint8 (size, size, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def png(image: np.ndarray | Image.Image) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, format="PNG")
    return out.getvalue()


@dataclass
class ListedSource:
    """A source that gives what it is told to."""

    items: list[Sample | Skipped]
    heads: tuple[Head, ...] = ()
    details: dict[str, object] = field(default_factory=dict)

    @property
    def description(self) -> Description:
        return Description("listed", len(self.items), self.heads, True, self.details)

    def __iter__(self) -> Iterator[Sample | Skipped]:
        return iter(self.items)


@pytest.fixture(name="pixels")
def _pixels() -> Callable[..., np.ndarray]:
    return pixels


@pytest.fixture(name="png")
def _png() -> Callable[[np.ndarray | Image.Image], bytes]:
    return png


@pytest.fixture
def listed() -> type[ListedSource]:
    return ListedSource


@pytest.fixture
def how() -> Callable[..., Preparation]:
    """A Preparation of 16-pixel RGB pictures; name what differs."""
    usual = {"validation_fraction": 0.2, "test_fraction": 0.2, "max_bad_fraction": 0.5}
    return lambda **changes: preparation(**usual | changes)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data set "set" below the data root of this machine."""
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path / "root"))
    path = tmp_path / "root" / "set"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def real_data() -> Path:
    root = os.environ.get("DARKROOM_DATA")
    if not root or not (Path(root) / "MNIST").is_dir():
        pytest.skip("DARKROOM_DATA names no folder with real data sets")
    return Path(root)


@pytest.fixture
def tar_of(pixels: Callable[..., np.ndarray], png: Callable[..., bytes]) -> Callable[..., None]:
    """Writes a shard of these members: pictures, each its own, and captions "x"; or what a mapping gives."""

    def write(path: Path, members: Iterable[str] | Mapping[str, bytes]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for i, name in enumerate(members):
                usual = b"x" if name.lower().endswith((".txt", ".json")) else png(pixels(i))
                content = members[name] if isinstance(members, Mapping) else usual
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    return write
