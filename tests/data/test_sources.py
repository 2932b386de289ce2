"""Folders, captions and tar shards as their users have them, with everything users do wrong."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.config.sections import Preparation
from darkroom.core.errors import DarkroomError
from darkroom.data.manifest import scan
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.sources.base import Reader, Sample, Skipped
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.data.sources.captions import from_class
from darkroom.data.sources.image_folder import ImageFolder
from darkroom.data.sources.webdataset import WebDataset
from tests.support.noting import samples_of

Pixels = Callable[..., np.ndarray]
Png = Callable[[np.ndarray], bytes]
How = Callable[..., Preparation]


@pytest.fixture
def put(folder: Path, pixels: Pixels, png: Png) -> Callable[..., None]:
    """Write files into the data set: bytes, text, or a number, which stands for a picture of its own."""

    def write(files: dict[str, bytes | str | int]) -> None:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = png(pixels(content)) if isinstance(content, int) else content
            path.write_bytes(data.encode() if isinstance(data, str) else data)

    return write


def said(source: Iterable[Sample | Skipped]) -> dict[str, tuple[str | None, str]]:
    """path -> (split, caption) of the samples."""
    return {i.path: (i.split, i.caption) for i in source if isinstance(i, Sample)}


def skipped(source: Iterable[Sample | Skipped]) -> dict[str, str]:
    return {i.file: i.reason for i in source if isinstance(i, Skipped)}


# --- class folders


def test_class_folders_give_labels_and_captions(put: Callable[..., None]) -> None:
    put({"ice_bear/a.png": 0, "zebra/deep/b.JPG": 1, "aardvark/c.webp": 2, "README.txt": "no picture"})
    source = ImageFolder("set", "a photo of a {label}")
    assert source.classes == ("aardvark", "ice_bear", "zebra")
    assert source.description.heads[0].classes == source.classes
    assert [(s.path, s.caption, s.labels) for s in samples_of(source)] == [
        ("aardvark/c.webp", "a photo of an aardvark", (0,)),
        ("ice_bear/a.png", "a photo of an ice bear", (1,)),
        ("zebra/deep/b.JPG", "a photo of a zebra", (2,)),
    ]


def test_class_folders_in_official_splits(put: Callable[..., None]) -> None:
    put({"train/cat/a.png": 0, "val/dog/b.png": 1, "test/cat/c.png": 2})
    source = ImageFolder("set", "{label}")
    assert source.classes == ("cat", "dog")
    assert [(s.path, s.split) for s in samples_of(source)] == [
        ("test/cat/c.png", "test"),
        ("val/dog/b.png", "validation"),
        ("train/cat/a.png", "train"),
    ]


def test_a_folder_of_pictures_without_classes(put: Callable[..., None], folder: Path, how: How) -> None:
    put({f"{i}.png": i for i in range(30)})
    info = prepare(ImageFolder("set", "{label}"), folder.parent / "out", how())
    assert (info.heads, info.captions, sum(info.splits.values())) == ((), False, 30)


def test_pictures_beside_class_folders_are_reported(put: Callable[..., None]) -> None:
    put({"cat/a.png": 0, "b.png": 1})
    assert skipped(ImageFolder("set", "{label}")) == {"b.png": "lies outside the class folders"}


@pytest.mark.parametrize(
    ("template", "label", "caption"),
    [
        ("{label}", "cat", "cat"),
        ("a photo of a {label}", "owl", "a photo of an owl"),
        ("A {label}, a {label}", "owl", "An owl, an owl"),
        ("a banana {label}", "owl", "a banana owl"),
        ("a {label}", "one", "a one"),
        ("a {label}", "unicorn", "a unicorn"),
        ("{label} {0} {other}", "owl", "owl {0} {other}"),
    ],
)
def test_caption_templates(template: str, label: str, caption: str) -> None:
    assert from_class(template, label) == caption


# --- captions beside pictures


def test_text_beside_pictures(put: Callable[..., None]) -> None:
    put({"a.png": 0, "a.txt": "\ufeffa red\n  house \n", "sub/b.png": 1, "sub/b.txt": "Ein grünes Haus"})
    assert said(CaptionedFolder("set")) == {"a.png": (None, "a red house"), "sub/b.png": (None, "Ein grünes Haus")}


def test_captions_that_are_missing_or_not_utf8(put: Callable[..., None], folder: Path, how: How) -> None:
    put({f"{i}.png": i for i in range(40)} | {f"{i}.txt": f"number {i}" for i in range(36)})
    put({"36.txt": "größe".encode("latin-1"), "37.txt": "  \n", "38.txt": "x" * 2_000_000})
    bad = {
        "36.png": "caption is not UTF-8",
        "37.png": "caption is empty",
        "38.png": "caption is larger than 1 MiB",
        "39.png": "no caption: no 39.txt beside it, no record of it",
    }
    assert skipped(CaptionedFolder("set")) == bad
    info = prepare(CaptionedFolder("set"), folder.parent / "out", how())
    assert {s["file"]: s["reason"] for s in info.skipped} == bad
    assert sum(info.splits.values()) == 36


def test_jsonl_metadata_of_official_splits(put: Callable[..., None]) -> None:
    records: dict[str, list[Any]] = {
        "test": [{"file_name": "a.png", "text": "one"}],
        "train": [{"file_name": "in/a.png", "text": "two"}, {"file_name": "b.png", "caption": "three", "more": [1]}],
    }
    put({f"{split}/metadata.jsonl": "\n".join(map(json.dumps, rows)) + "\n" for split, rows in records.items()})
    put({"test/a.png": 0, "train/in/a.png": 1, "train/b.png": 2})
    assert said(CaptionedFolder("set")) == {
        "test/a.png": ("test", "one"),
        "train/b.png": ("train", "three"),
        "train/in/a.png": ("train", "two"),
    }


def test_csv_metadata(put: Callable[..., None]) -> None:
    put(
        {
            "metadata.csv": 'file_name,text\r\na.png,"a cat, ""sleeping""\non a mat"\r\nb.png,dog\r\n',
            "a.png": 0,
            "b.png": 1,
        }
    )
    assert said(CaptionedFolder("set")) == {"a.png": (None, 'a cat, "sleeping" on a mat'), "b.png": (None, "dog")}


def test_several_captions_of_one_picture(put: Callable[..., None]) -> None:
    put({"metadata.jsonl": '{"file_name": "a.png", "text": "x"}\n{"file_name": "a.png", "text": "y"}', "a.png": 0})
    assert [(s.caption, s.others) for s in samples_of(CaptionedFolder("set"))] == [("x", ("y",))]


def test_records_of_no_use_are_reported(put: Callable[..., None], folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes(b"outside")
    lines = [
        b'{"file_name": "a.png", "text": "fine"}',
        b"{broken",
        b'{"file_name": "b.png", "text": "gr\xf6n"}',
        b'{"file_name": "c.png", "text": 3}',
        b'{"file_name": "d.png"}',
        b'{"file_name": "../secret.png", "text": "x"}',
        b'{"text": "x"}',
        b'["list"]',
        b'{"file_name": "e.png", "text": "\\ud800"}',
    ]
    put({"metadata.jsonl": b"\n".join(lines)} | {f"{name}.png": i for i, name in enumerate("abcdef")})
    assert said(CaptionedFolder("set")) == {"a.png": (None, "fine")}
    neither = "no caption: neither 'text' nor 'caption' is given"
    assert skipped(CaptionedFolder("set")) == {
        "metadata.jsonl line 2": "not a JSON object",
        "b.png": "caption is not UTF-8",
        "c.png": "caption is not a string",
        "d.png": neither,
        "../secret.png": "named in metadata.jsonl line 6 but not there",
        "metadata.jsonl line 7": "no file_name",
        "metadata.jsonl line 8": "not a JSON object",
        "e.png": "caption is not UTF-8",
        "f.png": "no caption: no f.txt beside it, no record of it",
    }


def test_csv_without_its_columns_is_an_error(put: Callable[..., None]) -> None:
    put({"metadata.csv": "name,words\na.png,x\n", "a.png": 0})
    with pytest.raises(DarkroomError, match=r"metadata\.csv: needs the columns file_name and text; it has name, words"):
        list(CaptionedFolder("set"))


# --- pictures of no use, empty folders


@pytest.mark.parametrize("make", [lambda root: ImageFolder(root, "{label}"), CaptionedFolder, WebDataset])
def test_empty_and_missing_folders_are_errors(make: Callable[[str], Reader], folder: Path, how: How) -> None:
    with pytest.raises(DarkroomError, match=r"set: no (pictures|\*\.tar shards) in this folder"):
        prepare(make("set"), folder.parent / "out", how())
    with pytest.raises(DarkroomError, match=r"data root .*/nowhere: no such folder; set DARKROOM_DATA"):
        prepare(make("nowhere"), folder.parent / "out", how())


def test_bad_files_in_a_folder(put: Callable[..., None], folder: Path, how: How, pixels: Pixels, png: Png) -> None:
    put({f"cat/{i}.png": i for i in range(30)})
    put({"cat/empty.png": b"", "cat/cut.png": png(pixels(99, 64))[:300], "cat/text.png": "not a picture"})
    info = prepare(ImageFolder("set", "{label}"), folder.parent / "out", how(max_bad_fraction=0.1))
    assert [s["file"] for s in info.skipped] == ["cat/cut.png", "cat/empty.png", "cat/text.png"]
    assert [s["reason"].split()[0] for s in info.skipped] == ["truncated", "empty", "not"]
    with pytest.raises(DarkroomError, match=r"3 of 33 pictures .*cat/cut\.png: truncated"):
        prepare(ImageFolder("set", "{label}"), folder.parent / "out", how(max_bad_fraction=0.09))


# --- tar shards


def tar(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)


@pytest.fixture
def picture(pixels: Pixels, png: Png) -> Callable[[int], bytes]:
    return lambda seed: png(pixels(seed))


def test_shards_named_after_splits(folder: Path, picture: Callable[[int], bytes]) -> None:
    tar(
        folder / "train-0000.tar",
        {"0.png": picture(0), "0.txt": b"zero", "1.PNG": picture(1), "1.json": b'{"text": "one"}'},
    )
    tar(folder / "test-0000.tar", {"0.webp": picture(2), "0.json": b'{"caption": "two"}'})
    tar(folder / "validation/x.tar", {"d/0.jpeg": picture(3), "d/0.txt": b"three"})
    source = WebDataset("set")
    assert said(source) == {
        "test-0000.tar/0.webp": ("test", "two"),
        "validation/x.tar/d/0.jpeg": ("validation", "three"),
        "train-0000.tar/0.png": ("train", "zero"),
        "train-0000.tar/1.PNG": ("train", "one"),
    }
    assert source.description.size == 4


def test_shards_without_names_of_splits_are_dealt(folder: Path, picture: Callable[[int], bytes], how: How) -> None:
    members = {f"{i}.{kind}": picture(i) if kind == "png" else b"x" for i in range(40) for kind in ("png", "txt")}
    tar(folder / "00000.tar", members)
    info = prepare(WebDataset("set"), folder.parent / "out", how())
    assert sum(info.splits.values()) == 40
    assert set(info.splits) == {"test", "train", "validation"}


def test_members_of_no_use_are_reported(folder: Path, picture: Callable[[int], bytes]) -> None:
    members = {
        "a.png": picture(0),
        "b.txt": b"no picture",
        "c.png": picture(1),
        "c.json": b"[1]",
        "d.png": picture(2),
        "d.txt": b"\xff\xfe",
        "e.jpg": picture(3),
        "e.json": b"{",
    }
    tar(folder / "x.tar", members)
    assert skipped(WebDataset("set")) == {
        "x.tar/a.png": "no caption: no .txt and no .json of the same key",
        "x.tar/b": "no picture: it has .txt",
        "x.tar/c.png": "not a JSON object",
        "x.tar/d.png": "caption is empty",  # UTF-16's mark, and nothing after it
        "x.tar/e.jpg": "caption file is not JSON",
    }


def test_nothing_leaves_the_archive(folder: Path, picture: Callable[[int], bytes], how: How, tmp_path: Path) -> None:
    (folder.parent / "secret.png").write_bytes(picture(9))
    many = {f"{i}.{kind}": picture(i) if kind == "png" else b"x" for i in range(30) for kind in ("png", "txt")}
    evil = {"../../evil.png": picture(50), "../../evil.txt": b"e", "/tmp/abs.png": picture(51), "/tmp/abs.txt": b"a"}
    tar(folder / "x.tar", many | evil | {"link.txt": b"l"}, links={"link.png": "../secret.png"})
    before = sorted(p for p in tmp_path.rglob("*"))
    source = WebDataset("set")
    assert "x.tar/../../evil.png" in said(source)
    assert "x.tar/link" in skipped(source)
    prepare(source, tmp_path / "out", how())
    assert [p for p in sorted(tmp_path.rglob("*")) if "out" not in p.parts] == before


@pytest.mark.parametrize("harm", ["cut", "header", "empty", "text"])
def test_damaged_shards_are_errors(folder: Path, picture: Callable[[int], bytes], harm: str) -> None:
    shard = folder / "x.tar"
    tar(shard, {f"{i}.{kind}": picture(i) if kind == "png" else b"x" for i in range(5) for kind in ("png", "txt")})
    data = bytearray(shard.read_bytes())
    if harm == "header":
        at = data.index(b"2.png")
        data[at + 150] ^= 0xFF
    harmed = {"cut": bytes(data[:3000]), "header": bytes(data), "empty": b"", "text": b"a text file" * 100}
    shard.write_bytes(harmed[harm])
    with pytest.raises(DarkroomError, match=r"x\.tar: damaged"):
        list(WebDataset("set"))


def test_sources_verify_against_their_manifest(folder: Path, picture: Callable[[int], bytes]) -> None:
    tar(folder / "x.tar", {"0.png": picture(0), "0.txt": b"x"})
    manifest = scan(WebDataset("set").files, folder.parent / "x.json")
    assert len(said(WebDataset("set", manifest))) == 1
    tar(folder / "x.tar", {"0.png": picture(1), "0.txt": b"x"})
    with pytest.raises(DarkroomError, match=r"x\.tar: has md5"):
        list(WebDataset("set", manifest))


def test_a_caption_that_changed_is_noticed(put: Callable[..., None], folder: Path) -> None:
    put({"a.png": 0, "a.txt": "x"})
    manifest = scan(CaptionedFolder("set").files, folder.parent / "x.json")
    assert len(said(CaptionedFolder("set", manifest))) == 1
    put({"a.txt": "y"})
    with pytest.raises(DarkroomError, match=r"a\.txt: has md5"):
        list(CaptionedFolder("set", manifest))


def test_prepared_pictures_are_those_of_the_folder(
    put: Callable[..., None], folder: Path, how: How, pixels: Pixels
) -> None:
    put({f"{i}.png": i for i in range(30)} | {f"{i}.txt": str(i) for i in range(30)})
    prepare(CaptionedFolder("set"), folder.parent / "out", how())
    data = Prepared.open(folder.parent / "out")
    for name in data.info.splits:
        split = data.split(name)
        for image, caption in zip(split.images(), split.captions, strict=True):
            assert np.array_equal(image.permute(1, 2, 0), pixels(int(caption)))
