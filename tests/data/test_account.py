"""The account of pictures: seen = kept + duplicates + repeats + skipped + over the limit, for every source.

Catches pictures that vanish without a word, 300 lost ones counted as one, and repeats that nobody counts."""

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darkroom.config.sections import Preparation
from darkroom.core.artifact import read_json
from darkroom.core.errors import DarkroomError
from darkroom.data.images import SUFFIXES, UNREAD
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.repeats import Firsts
from darkroom.data.sources.base import Sample, Skipped
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.data.sources.image_folder import ImageFolder
from darkroom.data.sources.webdataset import WebDataset

How = Callable[..., Preparation]
Pixels = Callable[..., np.ndarray]
MAKERS = {
    "image_folder": lambda: ImageFolder("set", "a {label}"),
    "captioned_folder": lambda: CaptionedFolder("set"),
    "webdataset": lambda: WebDataset("set"),
}
stems = st.sampled_from(["a", "A", "b", "frame.0000", "frame.0001", "c.d", "é", "e\u0301", "x y"])
endings = st.sampled_from([".png", ".PNG", ".jpg", ".heic", ".txt", ".TXT", ".json", ".cls.txt", ".seg.png", ""])
places = st.sampled_from(["", "cat/", "dog/", "@eaDir/", ".hidden/"])
contents = st.integers(0, 6)  # a picture; 0: no picture
entries = st.dictionaries(st.tuples(places, stems, endings).map("".join), contents, min_size=1, max_size=14)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_picture_is_in_one_place(
    kind: str, folder: Path, how: How, pixels: Pixels, png: Callable[..., bytes], tar_of: Callable[..., None]
) -> None:
    """Whatever lies in a folder or a shard: counted by names alone, and held against the account."""
    fillers = {f"cat/filler {i}{end}": 100 + i for i in range(12) for end in (".png", ".txt")}

    @settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(entries, st.sampled_from(["keep", "drop", "merge_captions"]), st.sampled_from([None, 3]))
    def check(files: dict[str, int], repeats: str, limit: int | None) -> None:
        data = {}
        for name, seed in (files | fillers).items():
            text = name.lower().endswith((".txt", ".json"))
            data[name] = f"thing {seed % 2}".encode() if text else png(pixels(seed)) if seed else b"none"
        shutil.rmtree(folder)
        if kind == "webdataset":
            tar_of(folder / "0.tar", data)
        for name, content in data.items() if kind != "webdataset" else ():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        is_picture = [name.lower().endswith((*SUFFIXES, *UNREAD)) for name in data]
        hidden = [name.startswith(("@eaDir", ".")) for name in data]
        with tempfile.TemporaryDirectory() as out:
            try:
                info = prepare(MAKERS[kind](), Path(out) / "out", how(repeats=repeats, limit=limit, max_bad_fraction=1))
            except DarkroomError as error:
                if "none of" not in str(error):  # else too few for each split
                    raise
                return
        account = info.pictures
        assert account.adds_up
        further = info.set_aside.get("further pictures of a sample", 0)
        assert account.seen + further == sum(p and not h for p, h in zip(is_picture, hidden, strict=True))
        assert account.skipped == len(info.skipped) == len({entry["file"] for entry in info.skipped})
        assert account.kept <= sum(info.splits.values())
        assert not any("eaDir" in entry["file"] or ".hidden" in entry["file"] for entry in info.skipped)
        if repeats != "keep":
            assert account.repeats_kept == 0

    check()


def test_three_hundred_numbered_frames_are_three_hundred_pictures(
    folder: Path, how: How, tmp_path: Path, tar_of: Callable[..., None]
) -> None:
    """Catches 300 members that fall together into the key `frame`, reported as one."""
    plain = [f"{i:04d}.{end}" for i in range(200) for end in ("png", "txt")]
    tar_of(folder / "0.tar", [*plain, *(f"frame.{i:04d}.{end}" for i in range(300) for end in ("png", "txt"))])
    assert prepare(WebDataset("set"), tmp_path / "out", how(max_bad_fraction=0.01)).pictures.kept == 500
    tar_of(folder / "0.tar", [*plain, *(f"frame.{i:04d}.png" for i in range(300)), "frame.txt"])
    with pytest.raises(DarkroomError, match=r"300 of 500 pictures cannot be used.*frame\.0000\.png: no caption"):
        prepare(WebDataset("set"), tmp_path / "out", how(max_bad_fraction=0.01))


def test_dots_in_the_names_of_members(folder: Path, tar_of: Callable[..., None]) -> None:
    """Catches pictures that hide behind another of their key, and a sample's masks taken for training pictures."""
    tar_of(
        folder / "0.tar",
        [
            *("0001.jpg", "0001.txt", "0001.cls.txt", "0001.depth.png"),  # a further picture of the sample
            *("v1.2 final.png", "v1.2 final.txt"),  # a caption of its own
            *("0002.rgb.png", "0002.txt"),  # the only picture of its key
            *("0003.rgb.png", "0003.seg.png", "0003.txt"),  # which one?
            *("IMG_1.PNG", "img_1.TXT"),
            *("c.bmp", "c.json", "d.heic", "d.txt", "left over.txt", "README"),
        ],
    )
    source = WebDataset("set")
    items = list(source)
    assert [item.path for item in items if isinstance(item, Sample)] == [
        f"0.tar/{name}" for name in ("0001.jpg", "v1.2 final.png", "0002.rgb.png", "IMG_1.PNG")
    ]
    lost = {item.file: item.reason for item in items if isinstance(item, Skipped) and item.picture}
    reason = "its key 0003 has 2 pictures and no plain one; name the one to be used 0003.png"
    assert lost == {
        "0.tar/0003.rgb.png": reason,
        "0.tar/0003.seg.png": reason,
        "0.tar/c.bmp": "caption file is not JSON",
        "0.tar/d.heic": "a picture of a format that is not read; save it as PNG or JPEG",
    }
    assert {item.file for item in items if isinstance(item, Skipped) and not item.picture} == {
        "0.tar/README",
        "0.tar/left over",
    }
    assert source.description.set_aside == {"further pictures of a sample": 1}


def test_captions_without_pictures_are_no_lost_pictures(
    folder: Path, how: How, tmp_path: Path, pixels: Pixels, png: Callable[..., bytes]
) -> None:
    for i in range(30):
        (folder / f"{i}.png").write_bytes(png(pixels(i)))
        (folder / f"{i}.txt").write_text("x")
        (folder / f"gone {i}.txt").write_text("x")
    info = prepare(CaptionedFolder("set"), tmp_path / "out", how(max_bad_fraction=0))
    assert (info.pictures.seen, info.pictures.kept, len(info.strays)) == (30, 30, 30)
    assert info.strays[0] == {"file": "gone 0.txt", "reason": "a caption without a picture"}


def repeated(pixels: Pixels) -> list[Sample | Skipped]:
    """40 pictures; of ten of them a second copy with the same caption, of five a third with another one."""
    items = [Sample(pixels(i), f"{i}.png", f"thing {i}", others=("also",)) for i in range(40)]
    items += [Sample(pixels(i), f"copy {i}.png", f"thing {i}") for i in range(10)]
    items += [Sample(pixels(i), f"other {i}.png", "other words") for i in range(5)]
    return list(items)


@pytest.mark.parametrize(
    ("repeats", "kept", "left_out", "rows"),
    [("keep", 55, 0, 95), ("drop", 40, 15, 80), ("merge_captions", 40, 15, 85)],
)
@pytest.mark.parametrize("limit", [None, 1000])
def test_repeats_within_a_split(
    repeats: str, kept: int, left_out: int, rows: int, limit: int | None, tmp_path: Path, listed: type, how: How,
    pixels: Pixels,
) -> None:  # fmt: skip
    """Several captions of one picture stay, whatever becomes of repeats."""
    firsts = Firsts()
    info = prepare(
        listed(repeated(pixels)), tmp_path / "out", how(repeats=repeats, limit=limit), firsts=firsts
    )  # fmt: skip
    account = info.pictures
    assert (account.seen, account.kept, account.repeats_within_splits) == (55, kept, left_out)
    assert (account.repeats_kept, account.duplicates_across_splits) == (15 - left_out, 0)
    assert sum(info.splits.values()) == rows
    written = read_json(tmp_path / "out/dataset.json")["pictures"]
    assert written["repeats_within_splits"] == left_out
    data = Prepared.open(tmp_path / "out")
    said = [caption for split in info.splits for caption in data.split(split).captions]
    assert said.count("other words") == {"keep": 5, "drop": 0, "merge_captions": 5}[repeats]
    assert said.count("thing 0") == (2 if repeats == "keep" else 1)
    told = firsts.listing(repeats)["repeats_within_splits"]  # type: ignore[arg-type]
    assert told["count"] == len(told["listed"]) == 15
    assert all(pair["same_as"].endswith(pair["picture"].split()[-1]) for pair in told["listed"])


@pytest.mark.parametrize("repeats", ["keep", "drop", "merge_captions"])
def test_what_is_beyond_the_limit_is_counted(
    repeats: str, tmp_path: Path, listed: type, how: How, pixels: Pixels
) -> None:
    """Whichever order they come in: the captions of a repeat follow its picture, in or out."""
    items = repeated(pixels)
    for given_items in (items, random.Random(0).sample(items, len(items))):
        info = prepare(listed(given_items), tmp_path / "out", how(repeats=repeats, limit=4))
        assert info.pictures.kept == 12
        assert info.pictures.over_limit == (43 if repeats == "keep" else 28)
        assert info.pictures.adds_up


def test_duplicates_and_repeats_are_told_apart(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    """Catches 409 repeated pictures reported as "duplicates: 0", and both kinds without a name."""
    items = [Sample(pixels(i), f"test/{i}.png", "x", "test") for i in (0, 1, 1)]
    items += [Sample(pixels(i), f"train/{i}.png", "x", "train") for i in (0, *range(2, 40), 2, 2)]
    firsts = Firsts()
    info = prepare(listed(items), tmp_path / "out", how(repeats="drop"), firsts=firsts)
    assert (info.pictures.duplicates_across_splits, info.pictures.repeats_within_splits) == (1, 3)
    told = firsts.listing("drop")
    assert told["duplicates_across_splits"]["listed"] == [
        {"picture": "train: train/0.png", "same_as": "test: test/0.png"}
    ]
    assert {"picture": "test: test/1.png", "same_as": "test: test/1.png"} in told["repeats_within_splits"]["listed"]
    assert told["repeats_within_splits"]["became"] == "left out"
