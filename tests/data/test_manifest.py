"""Outside files: found below the data root, listed once, and refused when they are no longer the same."""

import hashlib
from pathlib import Path

import pytest

from darkroom.core.errors import DarkroomError
from darkroom.data.manifest import Files, Manifest, data_root, scan


@pytest.fixture
def manifest(folder: Path, tmp_path: Path) -> Manifest:
    for name in ("b/two.png", "a/one.png", "a/one.txt", ".hidden/x.png", "notes.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode())
    found = scan(Files("set", None, (".png", ".txt")), tmp_path / "set.json")
    found.write()
    return Manifest.load(tmp_path / "set.json")


def test_scan_lists_names_sizes_and_hashes(manifest: Manifest, folder: Path) -> None:
    assert list(manifest.files) == ["a/one.png", "a/one.txt", "b/two.png"]
    assert manifest.files["b/two.png"].size == 9
    assert manifest.files["b/two.png"].md5 == hashlib.md5(b"b/two.png").hexdigest()
    assert str(folder.parent) not in manifest.path.read_text()


def test_unchanged_files_are_read(manifest: Manifest) -> None:
    files = Files("set", manifest, (".png", ".txt"))
    assert files.names == list(manifest.files)
    assert files.read("a/one.png") == b"a/one.png"
    with files.open("a/one.png") as file:
        assert file.read() == b"a/one.png"


@pytest.mark.parametrize("way", ["read", "open"])
def test_a_changed_file_is_refused(manifest: Manifest, folder: Path, way: str) -> None:
    (folder / "a/one.png").write_bytes(b"a/0ne.png")
    with pytest.raises(DarkroomError, match=r"a/one\.png: has md5 \w{32} .* says \w{32} .*darkroom data scan"):
        getattr(Files("set", manifest, (".png", ".txt")), way)("a/one.png")


def test_missing_and_unknown_files_are_refused(manifest: Manifest, folder: Path) -> None:
    (folder / "new.png").touch()
    with pytest.raises(DarkroomError, match=r"1 files are there but not listed, first new\.png; .*darkroom data scan"):
        _ = Files("set", manifest, (".png", ".txt")).names
    (folder / "a/one.txt").unlink()
    with pytest.raises(DarkroomError, match=r"1 files are listed there but missing, first a/one\.txt"):
        _ = Files("set", manifest, (".png", ".txt")).names


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match="no manifest of the source yet; run `darkroom data scan`"):
        Manifest.load(tmp_path / "none.json")
    (tmp_path / "odd.json").write_text('{"a.png": 3}')
    with pytest.raises(DarkroomError, match="not a manifest"):
        Manifest.load(tmp_path / "odd.json")


def test_the_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DARKROOM_DATA", raising=False)
    assert data_root() == Path("data/raw")
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path))
    assert data_root() == tmp_path
    with pytest.raises(DarkroomError, match=r"data root .*/gone: no such folder; set DARKROOM_DATA"):
        _ = Files("gone").names


def test_links_are_followed_but_not_in_circles(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a/one.png").touch()
    (folder / "a/back").symlink_to(folder)
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "two.png").touch()
    (folder / "b").symlink_to(elsewhere)
    assert Files("set", None, (".png",)).names == ["a/one.png", "b/two.png"]


def test_a_file_name_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "\udcff.png").touch()
    with pytest.raises(DarkroomError, match="not UTF-8; rename it"):
        _ = Files("set", None, (".png",)).names


def test_a_dangling_link_is_an_error_not_a_gap(folder: Path) -> None:
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    files = Files("set", None, (".png",))
    for ask in (files.read, files.open, files.size):
        with pytest.raises(DarkroomError, match=r"gone\.png: cannot be read \(No such file"):
            ask(files.names[0])
