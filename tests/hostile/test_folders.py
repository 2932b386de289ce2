"""What lies in folders and is no file: pipes, devices, links in circles, depths without end."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom.data.manifest import Files, Manifest, scan
from darkroom.data.sources.torchvision_sets import Torchvision
from tests.support import corpus, trial

KINDS = {"image_folder": "x.png", "captioned_folder": "x.txt", "webdataset": "x.tar"}


def listen(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may be no longer than 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


TRAPS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (os.mkfifo, "is not a file but a folder, pipe, socket or device; remove it"),
    "socket": (listen, "is not a file but a folder, pipe, socket or device; remove it"),
    "endless": (
        lambda path: path.symlink_to("/dev/zero"),
        "is not a file but a folder, pipe, socket or device; remove it",
    ),
    "gone": (lambda path: path.symlink_to("nowhere"), "cannot be read (No such file or directory)"),
    "circle": (lambda path: path.symlink_to(path.name), "cannot be read (Too many levels of symbolic links)"),
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read_is_an_error(kind: str, trap: str, folder: Path) -> None:
    make, reason = TRAPS[trap]
    if kind == "captioned_folder":
        (folder / "x.png").write_bytes(corpus.saved(corpus.photo(0), "PNG"))
    make(folder / KINDS[kind])
    source = trial.MAKERS[kind]("set")
    name = KINDS[kind]
    assert f"{name}: {reason}" in trial.refusal(lambda: list(source))
    assert f"{name}: {reason}" in trial.refusal(lambda: scan(source.files, "unwritten.json"))


def test_a_folder_that_cannot_be_listed_is_an_error_not_a_gap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shut").mkdir()
    (folder / "a.png").touch()
    list_folder = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    message = trial.refusal(lambda: list(trial.MAKERS["image_folder"]("set")))
    assert message.endswith("set/shut: cannot be listed (Permission denied); fix or remove it")


def dig(folder: Path, name: str, levels: int) -> None:
    """Folders in folders, as deep as no path reaches, and in the lowest a.png."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("a.png", os.O_CREAT, dir_fd=here))
    os.close(here)


def test_folders_lie_deep(folder: Path) -> None:
    dig(folder, "d", 1100)
    try:
        with trial.within(10):
            assert Files("set", None, (".png",)).names == ["d/" * 1100 + "a.png"]
    finally:
        subprocess.run(["rm", "-r", folder / "d"], check=True)  # Python itself cannot remove it


def test_what_no_path_reaches_is_an_error_not_a_gap(folder: Path) -> None:
    dig(folder, "d" * 200, 25)
    message = trial.refusal(lambda: Files("set", None, (".png",)).names)
    assert "cannot be listed (File name too long)" in message


def test_links_in_circles_are_entered_once(folder: Path) -> None:
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
        (folder / name / f"{name}.png").touch()
    for name, target in (
        ("a/b", "../b"),
        ("b/a", "../a"),
        ("b/up", ".."),
        ("c/self", "."),
        ("c/out", "/proc/self/cwd"),
    ):
        (folder / name).symlink_to(target)
    (folder / "c/out").unlink()
    with trial.within(5):
        assert Files("set", None, (".png",)).names == ["a/a.png", "a/b/b.png", "c/c.png"]


@pytest.mark.parametrize("name", [b"\xff.png", b"gr\xf6n/a.png", b"\xed\xa0\x80.png"])
def test_names_that_are_not_utf8_are_errors(name: bytes, folder: Path) -> None:
    path = os.path.join(os.fsencode(folder), name)  # noqa: PTH118
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    with open(path, "wb"):  # noqa: PTH123
        pass
    assert "is not UTF-8; rename it" in trial.refusal(lambda: list(trial.MAKERS["image_folder"]("set")))


@pytest.mark.parametrize("root", ["x" * 5000, "a\0b", "two\nlines", "\ud800", "gone"])
def test_roots_that_are_none_are_errors(root: str, folder: Path) -> None:
    for make in (*trial.MAKERS.values(), lambda root: Torchvision("MNIST", root, "{label}", False)):
        message = trial.refusal(lambda make=make: list(make(root)))
        assert "no such f" in message
        assert "DARKROOM_DATA" in message


def test_manifests_of_any_content(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    for content in (
        *(b"", b"\0", b"\xff", b"null", b"[]", b"3", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000),
        b'{"a": {"size": 1e999, "md5": "x"}}',
        b'{"a": {"size": true, "md5": "x"}}',
        b'{"a": {"size": "1", "md5": "x"}}',
        b'{"a": {"size": 1, "md5": 2}}',
        b'{"a": {"size": 1}}',
    ):
        path.write_bytes(content)
        assert str(path) in trial.refusal(lambda: Manifest.load(path))
    for other in (tmp_path, "x" * 5000, "a\0b", "two\nlines"):
        trial.refusal(lambda other=other: Manifest.load(other))
    path.write_bytes(b'{"../../\\n\\ud800": {"size": -1, "md5": "x"}}')
    trial.refusal(lambda: Manifest.load(path).check_names(["a\nb"]))
