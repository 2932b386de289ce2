"""One picture saved twice is found across splits, however it was saved; others, however alike, are not."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.config.sections import Preparation
from darkroom.data.near_duplicates import LISTED, MOST_APART, NearDuplicates, listing
from darkroom.data.prepare import prepare
from darkroom.data.prepared_writer import Row
from darkroom.data.sources.base import Sample
from darkroom.data.sources.scenes import Scenes

How = Callable[..., Preparation]


def photo(seed: int, size: int = 64) -> Image.Image:
    """Smooth, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def again(image: Image.Image, kind: str, **options: object) -> Image.Image:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return Image.open(out).convert("RGB")


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": lambda image: again(image, "JPEG", quality=50),
    "webp": lambda image: again(image, "WEBP", quality=50),
    "smaller": lambda image: image.resize((48, 48), Image.Resampling.LANCZOS),
    "larger": lambda image: again(image.resize((150, 150)), "JPEG", quality=80),
}


def test_copies_are_found_across_splits(tmp_path: Path, listed: type, how: How) -> None:
    items = [Sample(photo(i), f"{i}.png", "x", "test") for i in range(20)]
    items += [Sample(photo(i), f"{i}.png", "x", "validation") for i in range(20, 40)]
    items += [Sample(photo(i), f"{i}.png", "x", "train") for i in range(40, 200)]
    copies = [Sample(copy(photo(seed)), name, "x", "train") for seed, (name, copy) in enumerate(COPIES.items(), 18)]
    near = NearDuplicates()
    info = prepare(listed([*items, *copies]), tmp_path / "out", how(image_size=32), near.add)
    assert info.pictures.duplicates_across_splits == 0
    assert sum(info.splits.values()) == 204
    found = list(near.found())
    assert {pair.picture: (pair.like_split, pair.like) for pair in found} == {
        name: ("test" if seed < 20 else "validation", f"{seed}.png") for seed, name in enumerate(COPIES, 18)
    }
    apart = [pair["apart"] for pair in listing(found)["nearest"]]
    assert apart == sorted(pair.apart for pair in found)
    assert all(0 < pair.apart <= MOST_APART for pair in found)


def test_a_picture_of_several_captions_is_one_picture(tmp_path: Path, listed: type, how: How) -> None:
    """Catches a count of rows where pictures are meant."""
    items = [Sample(photo(0), "a.png", "x", "test"), Sample(photo(2), "d.png", "x", "validation")]
    items += [Sample(photo(1), "b.png", "x", "train", others=("y", "z"))]
    items += [Sample(again(photo(0), "JPEG"), "c.png", "x", "train", others=("y", "z"))]
    near = NearDuplicates()
    info = prepare(listed(items), tmp_path / "out", how(image_size=32), near.add)
    assert info.splits["train"] == 6
    assert [(pair.picture, pair.like) for pair in near.found()] == [("c.png", "a.png")]


def test_copies_within_a_split_are_none_of_its_business(tmp_path: Path, listed: type, how: How) -> None:
    items = [Sample(photo(i), f"{i}.png", "x", s) for i, s in enumerate(["test", "validation"] + ["train"] * 20)]
    items += [Sample(copy(photo(5)), name, "x", "train") for name, copy in COPIES.items()]
    near = NearDuplicates()
    prepare(listed(items), tmp_path / "out", how(), near.add)
    assert list(near.found()) == []


def test_the_distance_is_that_of_the_nearest() -> None:
    """Grey levels, whatever the number of channels."""
    for shape in ((16, 16), (16, 16, 3)):
        near = NearDuplicates()
        for split, grey in (("test", 100), ("test", 103), ("train", 105), ("train", 50)):
            near.add(split, Row(np.full(shape, grey, np.uint8), f"{grey}", "", (), ()))
        assert [(p.picture, p.like, p.apart) for p in near.found()] == [("105", "103", 2.0)]


def test_drawn_scenes_are_not_taken_for_copies(tmp_path: Path, how: How) -> None:
    near = NearDuplicates()
    info = prepare(Scenes(300, 100, 100, 100, 0), tmp_path / "out", how(image_size=32), near.add)
    assert sum(info.splits.values()) == 600
    assert list(near.found()) == []


def test_the_listing_counts_all_and_names_the_nearest() -> None:
    near = NearDuplicates()
    for i in range(LISTED + 5):
        for split, grey in (("test", 4 * i), ("train", 4 * i + 1)):
            image = np.full((8, 8, 3), grey, np.uint8)
            image[0] = 2 * i
            near.add(split, Row(image, f"{split}\n{i}", "", (), ()))
    made = listing(near.found())
    assert made["count"] == LISTED + 5
    assert len(made["nearest"]) == LISTED
    assert made["nearest"][0] == {"picture": "train: train\\n0", "like": "test: test\\n0", "apart": 0.94}
    assert list(NearDuplicates().found()) == []
