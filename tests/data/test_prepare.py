"""Preparing data: the split laws, everything left out accounted for, the same input giving the same bytes."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.config.sections import Preparation
from darkroom.core.artifact import content_hash, file_hash, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.output_shards import Shards
from darkroom.data import decoding
from darkroom.data.manifest import Entry, Manifest
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.prepared_writer import Row
from darkroom.data.sources.base import Sample, Skipped
from darkroom.data.sources.image_folder import ImageFolder
from darkroom.data.sources.scenes import Scenes

How = Callable[..., Preparation]
Pixels = Callable[..., np.ndarray]


def pictures(root: Path) -> dict[str, set[bytes]]:
    """Split -> the pixels of its pictures."""
    data = Prepared.open(root)
    return {name: {image.numpy().tobytes() for image in data.split(name).images()} for name in data.info.splits}


def samples(pixels: Pixels, n: int, split: str | None = None, first: int = 0) -> list[Sample | Skipped]:
    return [Sample(pixels(i), f"{i}.png", f"picture {i}", split) for i in range(first, first + n)]


def test_equal_pixels_never_fall_into_two_splits(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    twice = [*samples(pixels, 60), *(Sample(pixels(i), f"again/{i}.png", "again") for i in range(60))]
    info = prepare(listed(twice), tmp_path / "out", how())
    assert sum(info.splits.values()) == 120
    assert info.pictures.duplicates_across_splits == 0
    found = pictures(tmp_path / "out")
    assert {name: 2 * len(images) for name, images in found.items()} == info.splits
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 60


def test_what_an_official_split_holds_is_dropped_from_training(
    tmp_path: Path, listed: type, how: How, pixels: Pixels
) -> None:
    items = [
        *samples(pixels, 5, "test"),
        *samples(pixels, 5, "validation", first=3),  # 3 and 4 are in test too
        *samples(pixels, 20, "train", first=6),  # 6 and 7 are in validation too
    ]
    info = prepare(listed(items), tmp_path / "out", how())
    assert info.splits == {"test": 5, "train": 18, "validation": 3}
    assert (
        info.pictures.duplicates_across_splits
        == read_json(tmp_path / "out/dataset.json")["pictures"]["duplicates_across_splits"]
        == 4
    )
    found = pictures(tmp_path / "out")
    assert not found["train"] & (found["test"] | found["validation"])
    assert not found["validation"] & found["test"]


def test_official_test_kept_validation_carved(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    info = prepare(listed([*samples(pixels, 5, "test"), *samples(pixels, 400, "train", 5)]), tmp_path / "out", how())
    assert info.splits["test"] == 5
    assert abs(info.splits["validation"] - 80) < 35
    assert sum(info.splits.values()) == 405


def test_validation_may_be_carved_from_the_official_test_split(
    tmp_path: Path, listed: type, how: How, pixels: Pixels
) -> None:
    items = [*samples(pixels, 400, "test"), *samples(pixels, 300, "train", 390)]  # 390 to 399 are in test too
    info = prepare(listed(items), tmp_path / "out", how(validation_from="test"))
    assert info.splits["train"] == 290
    assert info.pictures.duplicates_across_splits == 10
    assert info.splits["validation"] + info.splits["test"] == 400
    assert abs(info.splits["validation"] - 80) < 35
    found = pictures(tmp_path / "out")
    assert not found["train"] & (found["validation"] | found["test"])
    assert not found["validation"] & found["test"]
    carved = {pixels(i).transpose(2, 0, 1).tobytes() for i in range(400)}
    assert found["validation"] | found["test"] == carved
    prepare(listed(items), tmp_path / "usual", how())
    assert found["validation"] < pictures(tmp_path / "usual")["test"]


def test_equal_pictures_of_the_test_split_fall_together(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    items = [*samples(pixels, 50, "test"), *samples(pixels, 50, "test"), *samples(pixels, 20, "train", 50)]
    info = prepare(listed(items), tmp_path / "out", how(validation_from="test"))
    assert info.splits == {name: 2 * len(images) for name, images in pictures(tmp_path / "out").items()} | {"train": 20}
    assert info.splits["validation"] + info.splits["test"] == 100


@pytest.mark.parametrize("split", ["validation", "train", None])
def test_validation_is_carved_from_a_test_split_that_there_is(
    split: str | None, tmp_path: Path, listed: type, how: How, pixels: Pixels
) -> None:
    official = [] if split != "validation" else samples(pixels, 9, "test", 100)
    said = "a validation split" if split == "validation" else "no test split"
    with pytest.raises(
        DarkroomError, match=rf"validation_from = 'test', but the source has {said} of its own; use train"
    ):
        prepare(listed([*official, *samples(pixels, 60, split)]), tmp_path / "out", how(validation_from="test"))
    # A small test split leaves validation empty: nothing of train takes its place.
    few = [*samples(pixels, 1, "test"), *samples(pixels, 60, "train", 1)]
    with pytest.raises(DarkroomError, match=r"split (validation|test): none of 61 pictures"):
        prepare(listed(few), tmp_path / "out", how(validation_from="test"))


def test_without_an_official_test_split_one_is_carved(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    for name, split in (("train", "train"), ("none", None)):
        prepare(listed(samples(pixels, 60, split)), tmp_path / name, how())
    assert pictures(tmp_path / "train") == pictures(tmp_path / "none")
    assert set(pictures(tmp_path / "none")) == {"test", "train", "validation"}


def test_a_picture_keeps_its_split_when_others_come(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    prepare(listed(samples(pixels, 50)), tmp_path / "few", how())
    prepare(listed(samples(pixels, 90)[::-1]), tmp_path / "more", how())
    few, more = pictures(tmp_path / "few"), pictures(tmp_path / "more")
    assert all(few[name] <= more[name] for name in few)


def test_a_source_must_give_held_out_splits_first(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    with pytest.raises(ValueError, match="test after train"):
        prepare(listed([*samples(pixels, 3, "train"), *samples(pixels, 3, "test", 3)]), tmp_path / "out", how())


def test_skipped_files_are_counted_and_listed(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    bad = [Sample(b"", "z/empty.png", "x"), Sample(b"no picture", "a\udcff.png", "x"), Skipped("m.jpg", "no caption")]
    info = prepare(listed([*samples(pixels, 40), *bad]), tmp_path / "out", how())
    assert sum(info.splits.values()) == 40
    assert read_json(tmp_path / "out/dataset.json")["skipped"] == list(info.skipped)
    assert [(s["file"], s["reason"].split(" of")[0]) for s in info.skipped] == [
        ("a\\udcff.png", "not a picture"),
        ("m.jpg", "no caption"),
        ("z/empty.png", "empty file"),
    ]


def test_too_many_bad_files_are_an_error(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    items = [*samples(pixels, 30), *(Sample(b"", f"bad{i}.png", "x") for i in range(10))]
    with pytest.raises(DarkroomError, match=r"10 of 40 pictures .*\.max_bad_fraction = 0\.2 .*bad0\.png: empty file"):
        prepare(listed(items), tmp_path / "out", how(max_bad_fraction=0.2))
    assert not list(tmp_path.iterdir())
    prepare(listed(items), tmp_path / "out", how(max_bad_fraction=0.25))


def test_a_split_that_stays_empty_is_an_error(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    with pytest.raises(DarkroomError, match=r"split validation: none of 2 pictures .*\.validation_fraction"):
        prepare(listed(samples(pixels, 2, "test")[:1] + samples(pixels, 1, "train", 2)), tmp_path / "out", how())
    with pytest.raises(DarkroomError, match="split train: none of 0 pictures"):
        prepare(listed([]), tmp_path / "out", how())


def test_a_failure_leaves_what_was_there(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    prepare(listed(samples(pixels, 50)), tmp_path / "out", how())
    before = content_hash(tmp_path / "out")
    with pytest.raises(DarkroomError):
        prepare(listed([Skipped("a.png", "empty file")]), tmp_path / "out", how())
    assert content_hash(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_limit_chooses_by_pixels_and_seed_not_by_order(tmp_path: Path, listed: type, how: How, pixels: Pixels) -> None:
    items = samples(pixels, 200)
    shuffled = random.Random(0).sample(items, len(items))
    for name, given, seed in (("a", items, 0), ("b", shuffled, 0), ("c", items, 1)):
        info = prepare(listed(given), tmp_path / name, how(limit=10, seed=seed))
        assert info.splits == {"test": 10, "train": 10, "validation": 10}
    assert pictures(tmp_path / "a") == pictures(tmp_path / "b")
    assert pictures(tmp_path / "a")["train"] != pictures(tmp_path / "c")["train"]
    order = [int(c.split()[1]) for c in Prepared.open(tmp_path / "a").split("train").captions]
    assert order == sorted(order)


def test_the_same_source_gives_the_same_bytes(tmp_path: Path, how: How) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(Scenes(40, 10, 10, 10, seed), tmp_path / name, how(image_size=32))
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b") != content_hash(tmp_path / "c")
    assert str(tmp_path).encode() not in b"".join(f.read_bytes() for f in (tmp_path / "a").rglob("*") if f.is_file())


def test_dataset_json_tells_the_truth(tmp_path: Path, how: How) -> None:
    source = Scenes(60, 10, 20, 10, 0)
    assert prepare(source, tmp_path / "out", how(image_size=32)) == Prepared.open(tmp_path / "out").info
    info, train = read_json(tmp_path / "out/dataset.json"), Prepared.open(tmp_path / "out").split("train")
    assert info["splits"] == {"novel": 10, "test": 20, "train": 60, "validation": 10}
    assert (info["source"], info["image_size"], info["channels"], info["captions"]) == ("scenes", 32, 3, True)
    assert info["novel_pairs"] == [list(pair) for pair in source.novel_pairs]
    assert [h["name"] for h in info["heads"]][:2] == ["layout", "first.shape"]
    values = train.images().double() / 127.5 - 1
    assert np.allclose(info["channel_mean"], values.mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(info["channel_std"], values.std((0, 2, 3), unbiased=False), atol=1e-6)
    words = [word for caption in train.captions for word in caption.split()]
    assert info["vocabulary"]["words"] == len(set(words))
    assert info["vocabulary"]["most_common"][0] == ["a", words.count("a")]


@pytest.mark.parametrize(
    "choices",
    [{}, {"crops": 3}, {"repeats": "merge_captions"}, {"limit": 40, "channels": 1}],
    ids=["plain", "crops", "merged captions", "limited"],
)
def test_any_number_of_processes_gives_the_same_bytes(
    tmp_path: Path,
    listed: type,
    how: How,
    pixels: Pixels,
    png: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
    choices: Any,
) -> None:
    """Would catch results out of order, an encoded picture that is another row's, and skips that only one way sees."""
    monkeypatch.setattr(decoding, "WORTH_SHARDS", 1)
    items: list[Sample | Skipped] = []
    for i in range(150):
        twin = pixels(i % 130, 24)
        image = png(twin) if i % 2 else twin
        items.append(Sample(image, f"{i}.png", f"picture {i}", others=(f"the {i}th",) if i % 3 == 0 else ()))
        if i % 40 == 0:
            items += [Skipped(f"skip {i}", "no reason"), Sample(b"broken", f"broken {i}.png", "x")]
    hashes, accounts = set(), set()
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("DARKROOM_THREADS", threads)
        info = prepare(listed(items), tmp_path / threads, how(max_bad_fraction=0.5, **choices))
        hashes.add(content_hash(tmp_path / threads))
        accounts.add(str(info))
    assert len(hashes) == len(accounts) == 1


def test_scenes_drawn_by_many_processes_are_the_same(tmp_path: Path, how: How, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = set()
    for threads in ("1", "3"):
        monkeypatch.setenv("DARKROOM_THREADS", threads)
        prepare(Scenes(900, 60, 60, 10, 0, 16), tmp_path / threads, how())
        hashes.add(content_hash(tmp_path / threads))
    assert len(hashes) == 1


def test_a_stage_that_ended_in_the_middle_decodes_no_picture_twice(
    tmp_path: Path, listed: type, how: How, png: Callable[..., bytes], pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch shards that are made again, and one that stands for a picture which has changed since."""
    monkeypatch.setattr(decoding, "WORTH_SHARDS", 1)
    monkeypatch.setattr(decoding, "AT_ONCE", 10)
    monkeypatch.setenv("DARKROOM_THREADS", "1")
    items = [Sample(png(pixels(i, 24)), f"{i}.png", f"picture {i}") for i in range(60)]
    folder, rows = tmp_path / "shards", 0

    def ends(split: str, row: Row) -> None:
        nonlocal rows
        rows += 1
        if rows == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(listed(items), tmp_path / "made", how(), ends, shards=Shards(folder))
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(made) == 3
    prepare(listed(items), tmp_path / "made", how(), shards=Shards(folder))
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(after) == 6
    assert made.items() <= after.items()
    prepare(listed(items), tmp_path / "anew", how(), shards=Shards())
    assert content_hash(tmp_path / "made") == content_hash(tmp_path / "anew")
    prepare(listed([*items[:-1], Sample(png(pixels(99, 24)), "59.png", "picture 59")]), tmp_path / "other", how(),
            shards=Shards(folder))  # fmt: skip
    assert len(list(folder.iterdir())) == 7
    assert content_hash(tmp_path / "other") != content_hash(tmp_path / "made")


def test_a_picture_file_that_changed_is_read_again_and_the_others_are_not(
    tmp_path: Path, folder: Path, how: How, png: Callable[..., bytes], pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a shard that stands for a file as it was before, size and time of the last change being the same."""
    monkeypatch.setattr(decoding, "WORTH_SHARDS", 1)
    monkeypatch.setattr(decoding, "AT_ONCE", 10)
    monkeypatch.setenv("DARKROOM_THREADS", "2")
    source, shards, changed = ImageFolder("set", "{label}"), Shards(tmp_path / "shards"), folder / "37.png"
    for i in range(60):
        (folder / f"{i:02d}.png").write_bytes(png(pixels(i, 24)).ljust(4096, b"\0"))
    prepare(source, tmp_path / "made", how(), shards=shards)
    before, times = set(shards.folder.iterdir()), changed.stat()
    changed.write_bytes(png(pixels(99, 24)).ljust(4096, b"\0"))
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    prepare(source, tmp_path / "again", how(), shards=shards)
    assert len(set(shards.folder.iterdir()) - before) == 1
    assert content_hash(tmp_path / "again") != content_hash(tmp_path / "made")


def test_a_file_that_a_process_beside_cannot_read_is_named(
    tmp_path: Path, folder: Path, listed: type, how: How, png: Callable[..., bytes], pixels: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(decoding, "WORTH_SHARDS", 1)
    monkeypatch.setenv("DARKROOM_THREADS", "2")
    for i in range(40):
        (folder / f"{i:02d}.png").write_bytes(png(pixels(i, 24)))
    items = list(ImageFolder("set", "{label}"))
    (folder / "37.png").unlink()
    with pytest.raises(DarkroomError, match=r"37\.png: cannot be read \(No such file or directory\)"):
        prepare(listed(items), tmp_path / "made", how())


def test_with_a_manifest_a_shard_is_found_wherever_the_files_lie(
    tmp_path: Path, folder: Path, how: How, png: Callable[..., bytes], pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches shards that are known by folder and times, which no other machine finds, and a changed file that gets in.

    A file that was changed after its shard was made changes nothing: the shard is of the content that the manifest
    promises. Where that is read, or its size alone tells, the file is named.
    """
    monkeypatch.setattr(decoding, "WORTH_SHARDS", 1)
    monkeypatch.setattr(decoding, "AT_ONCE", 10)
    monkeypatch.setenv("DARKROOM_THREADS", "1")
    for i in range(60):
        (folder / f"{i:02d}.png").write_bytes(png(pixels(i, 24)).ljust(4096, b"\0"))
    entries = {file.name: Entry(4096, file_hash(file)) for file in folder.iterdir()}
    manifest, shards = Manifest(tmp_path / "set.json", entries), Shards(tmp_path / "shards")
    prepare(ImageFolder("set", "{label}", manifest), tmp_path / "made", how(), shards=shards)
    made = set(shards.folder.iterdir())
    assert len(made) == 6
    elsewhere = folder.parent / "copied"
    shutil.copytree(folder, elsewhere, copy_function=shutil.copyfile)
    (elsewhere / "37.png").write_bytes(png(pixels(99, 24)).ljust(4096, b"\0"))
    copied = ImageFolder("copied", "{label}", manifest)
    prepare(copied, tmp_path / "again", how(), shards=shards)
    assert set(shards.folder.iterdir()) == made
    assert content_hash(tmp_path / "again") == content_hash(tmp_path / "made")
    with pytest.raises(DarkroomError, match=r"37\.png: has md5 .* says"):
        prepare(copied, tmp_path / "other", how(), shards=Shards(tmp_path / "none yet"))
    (elsewhere / "37.png").write_bytes(png(pixels(99, 24)).ljust(5000, b"\0"))
    with pytest.raises(DarkroomError, match=r"37\.png: has md5 .* says"):
        prepare(ImageFolder("copied", "{label}", manifest), tmp_path / "other", how(), shards=shards)
