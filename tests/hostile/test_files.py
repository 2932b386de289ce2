"""Every file of the corpus is in the prepared data or listed with its reason, through every kind of source."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from darkroom.core.text import printable
from darkroom.data.prepared import Prepared
from darkroom.view.contact_sheet import contact_sheet
from tests.support import corpus, trial

KINDS = ("image_folder", "captioned_folder", "webdataset")


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_used_or_listed(kind: str, folder: Path, tmp_path: Path) -> None:
    good = dict(corpus.good())
    good |= {name: corpus.saved(corpus.photo(100 + i), "PNG") for i, name in enumerate(corpus.odd_names())}
    bad = {name: (content, reason) for name, content, reason in corpus.bad()}
    pictures = good | {name: content for name, (content, _) in bad.items()}
    assert len(pictures) == len(good) + len(bad) >= 90
    trial.fill(folder, kind, pictures, {})
    before = everything(tmp_path)
    with trial.within(30):
        books = trial.outcome(kind, tmp_path / "out")
    assert {path for path in everything(tmp_path) - before if "out" not in path.parts} == set()
    if kind == "webdataset":
        place = [f"x.tar/{i}/{name}" for i, name in enumerate(pictures)]
        used = {p for p, name in zip(place, pictures, strict=True) if name in good}
        left_out = {printable(p): bad[name][1] for p, name in zip(place, pictures, strict=True) if name in bad}
    else:
        at = "things/" if kind == "image_folder" else ""
        used, left_out = (
            {at + name for name in good},
            {at + printable(name): reason for name, (_, reason) in bad.items()},
        )
    assert books.kept == Counter(used)
    assert sorted(file for file, _ in books.listed) == sorted(left_out)
    for file, reason in books.listed:
        assert reason.startswith(left_out[file]), (file, reason)
    assert sum(books.info.splits.values()) + len(books.listed) == len(pictures)
    assert books.info.pictures.duplicates_across_splits == 0


def test_captions_of_every_kind(folder: Path, tmp_path: Path) -> None:
    said = {
        "plain": (b"a red thing", "a red thing"),
        "mark": (b"\xef\xbb\xbfa thing\r\n", "a thing"),
        "utf16": ("a wide thing".encode("utf-16"), "a wide thing"),
        "controls": (b"a\x0b\x0c\x1cthing\xe2\x80\xa8", "a thing"),
        "long": (b"thing " * 170_000, ("thing " * 170_000).strip()),
        "word": (b"-" * 1_000_000, "-" * 1_000_000),
        "right": ("\u202eشيء".encode(), "\u202eشيء"),
    }
    refused = {
        "huge": (b"x" * 10_000_000, "caption is larger than 1 MiB"),
        "empty": (b"", "caption is empty"),
        "nul": (b"a\0thing\0", "caption holds zero bytes, as UTF-16 without a byte order mark does; save it as UTF-8"),
        "latin": ("größe".encode("latin-1"), "caption is not UTF-8"),
        "surrogate": (b"\xed\xa0\x80", "caption is not UTF-8"),
        "picture": (corpus.saved(corpus.photo(0), "PNG"), "caption is not UTF-8"),
    }
    names = [*said, *refused, *(f"filler{i}" for i in range(30))]
    pictures = {f"{name}.png": corpus.saved(corpus.photo(i), "PNG") for i, name in enumerate(names)}
    captions = {f"{name}.png": content for name, (content, _) in (said | refused).items()}
    trial.fill(folder, "captioned_folder", pictures, captions)
    with trial.within(10):
        books = trial.outcome("captioned_folder", tmp_path / "out")
    assert dict(books.listed) == {f"{name}.png": reason for name, (_, reason) in refused.items()}
    assert len(books.listed) + books.kept.total() == len(pictures)
    found = {}
    for split in books.info.splits:
        part = Prepared.open(tmp_path / "out").split(split)
        found |= {image.numpy().tobytes(): caption for image, caption in zip(part.images(), part.captions, strict=True)}
        with trial.within(5):
            contact_sheet(part, tmp_path / "sheet.png")
    assert {caption for _, caption in said.values()} <= set(found.values())


def test_what_a_record_says_is_checked_like_a_file(folder: Path) -> None:
    """Records point anywhere and hold anything."""
    lines = [
        b'{"file_name": "a.png", "text": "' + b"x" * 10_000_000 + b'"}',
        b'{"file_name": "/etc/passwd", "text": "x"}',
        b'{"file_name": "../../../root/set/b.png", "text": "x"}',
        b'{"file_name": "b.png\\u0000", "text": "x"}',
        b'{"file_name": "\\ud800", "text": "x"}',
        b'{"file_name": "' + b"n" * 9_000 + b'", "text": "x"}',
        b"[" * 100_000,
        b"9" * 5_000,
    ]
    (folder / "metadata.jsonl").write_bytes(b"\n".join(lines))
    for i, name in enumerate("ab"):
        (folder / f"{name}.png").write_bytes(corpus.saved(corpus.photo(i), "PNG"))
    (folder / "b.txt").write_bytes(b"fine")
    with trial.within(5):
        items = list(trial.MAKERS["captioned_folder"]("set"))
    assert [item.caption for item in items if hasattr(item, "caption")] == ["fine"]
    assert len(items) == len(lines) + 1
    assert ("a.png", "caption is larger than 1 MiB") in [(i.file, i.reason) for i in items if hasattr(i, "file")]


@pytest.mark.parametrize(
    "text",
    [
        b"file_name,text," + b"x" * 200_000 + b"\na.png,x\n",
        b"file_name,text\na.png," + b"x" * 200_000 + b"\n",
        b'file_name,text\na.png,"never closed\nb.png,x\n',
        b'file_name,text\na.png,"closed" twice\n',
        b"\0\0\0",
        b"",
        "file_name,text\na.png,größe\n".encode("utf-16-le"),
        b"file_name:text\na.png:x\n",
        b"a\nb,c\x07d" * 9,
    ],
)
def test_tables_that_are_none_are_errors(text: bytes, folder: Path) -> None:
    (folder / "metadata.csv").write_bytes(text)
    (folder / "a.png").write_bytes(corpus.saved(corpus.photo(0), "PNG"))
    message = trial.refusal(lambda: list(trial.MAKERS["captioned_folder"]("set")))
    assert message.startswith("metadata.csv")


def test_a_forgotten_preview_does_not_mix_the_splits(folder: Path, tmp_path: Path) -> None:
    names = ["preview.png", *(f"{split}/cat/{i}.png" for split in ("train", "val", "test") for i in range(3))]
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(corpus.saved(corpus.photo(i), "PNG"))
        (folder / name).with_suffix(".txt").write_bytes(b"a cat")
    for kind in ("image_folder", "captioned_folder"):
        books = trial.outcome(kind, tmp_path / kind)
        assert books.info.splits == {"test": 3, "train": 3, "validation": 3}
        assert books.listed == [("preview.png", "lies outside the folders of the splits")]
    assert [head.classes for head in trial.MAKERS["image_folder"]("set").description.heads] == [("cat",)]


def test_pictures_beside_one_folder_called_test_are_refused(folder: Path) -> None:
    """Catches test pictures that become training pictures without a word."""
    for name in ("a.png", "b.png", "test/c.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
        (folder / name).with_suffix(".txt").write_bytes(b"x")
    message = trial.refusal(lambda: list(trial.MAKERS["captioned_folder"]("set")))
    assert "say a split: test, but others do not: a.png, b.png; name each split's folder train" in message


def test_names_are_shown_on_one_line() -> None:
    assert printable("straße/猫.png") == "straße/猫.png"
    assert printable("a\nb\x1b\udcff\u202e") == "a\\nb\\x1b\\udcff\\u202e"
    assert len(printable("x" * 10_000_000)) < 400
    assert np.all([printable(chr(code)).isprintable() for code in range(0, 0x11000, 7)])
