"""What disks, NAS boxes and tools leave behind is neither class nor training picture, nor a loss.

Catches `@eaDir` as a class and its thumbnails as training pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from darkroom.config.sections import Preparation
from darkroom.core.system_files import is_system, system_part
from darkroom.data.manifest import scan
from darkroom.data.prepare import prepare
from darkroom.data.sources.base import Sample, Skipped
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.data.sources.image_folder import ImageFolder
from darkroom.data.sources.webdataset import WebDataset

OWN = [
    *("@eaDir", "@EADIR", "#recycle", "#snapshot", "$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information"),
    *("__MACOSX", "lost+found", ".Trashes", ".Trash-1000", "@Recycle", ".ipynb_checkpoints", ".git", "found.000"),
]
FILES = ["Thumbs.db", "desktop.ini", "._x.jpg", ".DS_Store", "ehthumbs.db", "Icon\r"]


def test_which_names_are_a_systems_own() -> None:
    assert all(map(is_system, OWN + FILES))
    assert not any(map(is_system, ["cat", "recycle", "#1", "@home", "Thumbs", ".", "..", "macosx", "found.png", "_a"]))
    assert system_part("./train/../a.png") is None
    assert system_part("train/@eaDir/a.png/b.jpg") == "@eaDir"
    assert (system_part("a/._b.jpg"), system_part("a/.b.jpg"), system_part("a/Thumbs.db")) == ("._*", ".*", "Thumbs.db")


@pytest.mark.parametrize("own", OWN)
def test_in_folders(
    own: str, folder: Path, tmp_path: Path, pixels: Callable[..., np.ndarray], png: Callable[..., bytes],
    how: Callable[..., Preparation],
) -> None:  # fmt: skip
    names = [*(f"cat/{i}.png" for i in range(30)), f"{own}/a.png", f"cat/{own}/deep/b.png", "cat/._0.png"]
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(pixels(i)))
    (folder / "cat/Thumbs.db").write_bytes(b"x")
    source = ImageFolder("set", "{label}")
    assert source.classes == ("cat",)
    info = prepare(source, tmp_path / "out", how(max_bad_fraction=0))
    assert (info.pictures.seen, info.pictures.kept) == (30, 30)
    assert info.set_aside == {"._*": 1, own: 2}
    assert len(scan(source.files, tmp_path / "m.json").files) == 30
    for i in range(30):
        (folder / f"cat/{i}.txt").write_text("x")
    (folder / own / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}')
    items = list(CaptionedFolder("set"))
    assert (len(items), {type(item) for item in items}) == (30, {Sample})


def test_a_systems_folder_that_is_shut_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches `lost+found`, which only root may list."""
    import os

    (folder / "lost+found").mkdir()
    (folder / "a.png").touch()
    list_folder = os.scandir

    def refuse(path: object) -> object:
        if "lost+found" in str(getattr(path, "path", path)):
            raise PermissionError(13, "Permission denied")
        return list_folder(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    assert ImageFolder("set", "{label}").files.names == ["a.png"]


@pytest.mark.parametrize("own", OWN)
def test_in_shards(own: str, folder: Path, tar_of: Callable[..., None]) -> None:
    tar_of(folder / "0.tar", ["./0.png", "./0.txt", f"{own}/a.png", f"{own}/a.txt", f"b/{own}/._a.png", "._0.png"])
    source = WebDataset("set")
    items = list(source)
    assert [item.path for item in items if isinstance(item, Sample)] == ["0.tar/./0.png"]
    assert not [item for item in items if isinstance(item, Skipped)]
    assert source.description.set_aside == {"._*": 1, own: 2}
