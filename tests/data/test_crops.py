"""prepare_data.crops: variants of training pictures, which are rows and no pictures.

Catches held-out pictures multiplied, variants of one picture in two splits or in two judges' halves, crops taken from
the shrunk picture, crops that change with the machine or the order of files, and accounts that count rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.config.merging import complete_text
from darkroom.config.params import load
from darkroom.config.sections import Preparation
from darkroom.core.artifact import read_json
from darkroom.core.errors import DarkroomError
from darkroom.data.crops import SMALLEST, crops_of
from darkroom.data.fingerprint import fingerprint
from darkroom.data.halves import half_of, halves
from darkroom.data.images import conform
from darkroom.data.near_duplicates import NearDuplicates
from darkroom.data.prepare import prepare
from darkroom.data.prepared import INFO, Info, Prepared, PreparedSplit
from darkroom.data.prepared_writer import Row
from darkroom.data.sources.base import Sample, Skipped

How = Callable[..., Preparation]
Items = list[Sample | Skipped]
ROOT = Path(__file__).parents[2]
SIDE = 16  # of prepared pictures, as the fixture `how` has them


def photo(seed: int, width: int = 60, height: int = 44) -> Image.Image:
    """A picture larger than the prepared ones, and not square."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def photos(n: int, split: str | None = None, first: int = 0) -> Items:
    return [Sample(photo(i), f"{i}.png", f"picture {i}", split) for i in range(first, first + n)]


def content(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def paths(split: PreparedSplit) -> list[str]:
    """The name of each row's picture."""
    return [row["path"] for file in split._files for row in file.read(columns=["image"])["image"].to_pylist()]


def pixels_of(split: PreparedSplit) -> list[bytes]:
    return [image.tobytes() for image in split.images().permute(0, 2, 3, 1).contiguous().numpy()]


def test_training_pictures_become_k_rows_and_others_stay(tmp_path: Path, listed: type, how: How) -> None:
    """Also: the first variant is what the picture is without crops, the others are others, names and captions stay."""
    plain = prepare(listed(photos(60)), tmp_path / "plain", how())
    info = prepare(listed(photos(60)), tmp_path / "crops", how(crops=3))
    assert info.splits == plain.splits | {"train": 3 * plain.splits["train"]}
    assert info.pictures == plain.pictures
    assert (info.variants, read_json(tmp_path / "crops" / INFO)["variants"]) == (3, 3)
    assert Info.read(tmp_path / "crops") == info
    assert info.vocabulary == plain.vocabulary
    old, new = Prepared.open(tmp_path / "plain"), Prepared.open(tmp_path / "crops")
    for name in ("validation", "test"):
        assert pixels_of(old.split(name)) == pixels_of(new.split(name))
    before, after = old.split("train"), new.split("train")
    torch.testing.assert_close(after.images()[::3], before.images(), atol=0, rtol=0)
    assert after.captions == [caption for caption in before.captions for _ in range(3)]
    assert paths(after) == [path for path in paths(before) for _ in range(3)]
    assert len(set(pixels_of(after))) == len(after)


def test_one_variant_is_what_there_was(tmp_path: Path, listed: type, how: How) -> None:
    """No byte says that there might have been more."""
    prepare(listed(photos(60)), tmp_path / "plain", how())
    prepare(listed(photos(60)), tmp_path / "one", how(crops=1))
    assert content(tmp_path / "plain") == content(tmp_path / "one")
    assert b"variants" not in (tmp_path / "one" / INFO).read_bytes()


def test_crops_depend_on_seed_and_pixels_alone(tmp_path: Path, listed: type, how: How) -> None:
    """Neither on what else there is nor on its order; fewer crops are the first of more."""

    def variants(name: str, items: Items, **changes: object) -> dict[str, list[bytes]]:
        prepare(listed(items), tmp_path / name, how(**changes))
        split = Prepared.open(tmp_path / name).split("train")
        found: dict[str, list[bytes]] = {}
        for path, image in zip(paths(split), pixels_of(split), strict=True):
            found.setdefault(path, []).append(image)
        return found

    usual = variants("usual", photos(40), crops=3)
    prepare(listed(photos(40)), tmp_path / "again", how(crops=3))
    assert content(tmp_path / "usual") == content(tmp_path / "again")
    among_others = variants("others", photos(55)[::-1], crops=3)
    assert usual == {path: among_others[path] for path in usual}
    assert {path: images[:2] for path, images in usual.items()} == variants("fewer", photos(40), crops=2)
    other = variants("other", photos(40), crops=3, seed=1)
    assert all(other[path][0] == usual[path][0] and other[path][1:] != usual[path][1:] for path in usual)


@pytest.mark.parametrize("official", [None, "train", "test"])
def test_variants_are_of_one_split_and_one_half(official: str | None, tmp_path: Path, listed: type, how: How) -> None:
    """By the hash of its own pixels a crop is where its picture is: every law about equal pixels holds of crops too."""
    held_out = photos(10, official, 200) if official == "test" else []
    prepare(listed([*held_out, *photos(60, official and "train")]), tmp_path / "out", how(crops=4))
    data = Prepared.open(tmp_path / "out")
    train = data.split("train")
    half = halves(train).view(-1, 4)
    assert set(half.flatten().tolist()) == {0, 1}
    assert (half == half[:, :1]).all()
    torch.testing.assert_close(half[:, 0], half_of(train.images()[::4]))
    place = [
        int.from_bytes(fingerprint(np.frombuffer(p, np.uint8).reshape(SIDE, SIDE, 3))[:8]) for p in pixels_of(train)
    ]
    assert min(place) / 2**64 >= (0.2 if official == "test" else 0.4)


def test_a_crop_is_never_a_held_out_picture(
    tmp_path: Path, listed: type, how: How, pixels: Callable[..., np.ndarray]
) -> None:
    """An official test split that has just the crops which training would get: they are drawn anew."""
    training = photos(60, "train")
    prepare(listed([*photos(1, "test", 900), *training]), tmp_path / "first", how(crops=2))
    split = Prepared.open(tmp_path / "first").split("train")
    taken = split.images()[1::2].permute(0, 2, 3, 1).numpy()
    test: Items = [Sample(image, f"test/{i}.png", "a crop", "test") for i, image in enumerate(taken)]
    info = prepare(listed([*test, *training]), tmp_path / "second", how(crops=2))
    data = Prepared.open(tmp_path / "second")
    assert info.splits["test"] == len(taken)
    assert not set(pixels_of(data.split("train"))) & set(pixels_of(data.split("test")))
    assert len(set(pixels_of(data.split("train")))) == info.splits["train"]


def test_where_no_crop_fits_the_picture_stands(pixels: Callable[..., np.ndarray]) -> None:
    """Never a crop that does not fit, nor a row too few; a plain picture's crops are the picture."""
    first = conform(photo(0), SIDE, 3, "crop")
    assert all((crop == first).all() for crop in crops_of(photo(0), first, 3, 0, lambda found: False))
    plain = Image.new("RGB", (90, 40), "teal")
    first = conform(plain, SIDE, 3, "crop")
    assert all((crop == first).all() for crop in crops_of(plain, first, 3, 0, lambda found: True))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(200, 100), (100, 200), (100, 100), (1, 1), (7, 3)])
def test_crops_are_squares_of_the_source_at_its_full_resolution(size: tuple[int, int], channels: int) -> None:
    """The colour of a pixel tells where it was: a crop's corners give its box, which lies within and is a square."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    first = conform(image, 64, channels, "crop")
    crops = crops_of(image, first, 20, 0, lambda found: True)
    assert all(crop.shape == first.shape and crop.dtype == np.uint8 for crop in crops)
    if channels == 1 or min(size) < 100:
        return
    spans = [[int(crop[0, -1, 0]) - int(crop[0, 0, 0]), int(crop[-1, 0, 1]) - int(crop[0, 0, 1])] for crop in crops]
    assert all(abs(wide - high) <= 3 for wide, high in spans)
    assert all(SMALLEST * 100 - 5 <= wide <= 100 for wide, _ in spans)
    assert max(wide for wide, _ in spans) - min(wide for wide, _ in spans) > 10
    longer = [int(crop[0, 0, 0 if width >= height else 1]) for crop in crops]
    assert max(longer) - min(longer) > (60 if max(size) == 200 else 8)


def test_full_resolution_shows_detail_that_the_prepared_picture_has_not() -> None:
    """Stripes too fine for the prepared size are grey in it; cropped and shrunk less, some of them are seen better than
    in an enlargement of it."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255  # a period of 4 pixels; of 1 at the prepared size
    first = conform(stripes, 24, 3, "crop")
    sharp = max(float(crop.std()) for crop in crops_of(stripes, first, 8, 0, lambda found: True))
    soft = max(float(crop.std()) for crop in crops_of(first, first, 8, 0, lambda found: True))
    assert sharp > soft + 10


@pytest.mark.parametrize("limit", [None, 12])
@pytest.mark.parametrize(("repeats", "kept"), [("keep", 2), ("drop", 1), ("merge_captions", 1)])
def test_the_account_is_of_pictures(
    repeats: str, kept: int, limit: int | None, tmp_path: Path, listed: type, how: How
) -> None:
    """Repeats, the limit and the share of bad ones are as they are without crops; each caption has its variants."""
    twice: Items = [
        *(Sample(photo(i), f"{i}.png", f"a {i}", "train", others=(f"b {i}",)) for i in range(40)),
        *(Sample(photo(i), f"{i} again.png", f"c {i}", "train", others=(f"a {i}",)) for i in range(40)),
        Skipped("bad.png", "empty file"),
    ]
    plain = prepare(listed(twice), tmp_path / "plain", how(repeats=repeats, limit=limit))
    info = prepare(listed(twice), tmp_path / "crops", how(repeats=repeats, limit=limit, crops=3))
    assert info.pictures == plain.pictures
    assert info.pictures.adds_up
    assert info.splits == plain.splits | {"train": 3 * plain.splits["train"]}
    if limit is None:
        assert info.pictures.kept == 40 * kept
    old, new = (Prepared.open(tmp_path / name).split("train") for name in ("plain", "crops"))
    assert new.captions == [caption for caption in old.captions for _ in range(3)]
    torch.testing.assert_close(new.images()[::3], old.images(), atol=0, rtol=0)
    half = halves(new).view(-1, 3)
    assert (half == half[:, :1]).all()


def test_bad_pictures_count_once(tmp_path: Path, listed: type, how: How) -> None:
    """8 of 80 are a tenth, however many rows the others become."""
    items = [*photos(72), *(Skipped(f"bad {i}.png", "empty file") for i in range(8))]
    prepare(listed(items), tmp_path / "out", how(crops=5, max_bad_fraction=0.1))
    with pytest.raises(DarkroomError, match="8 of 80 pictures cannot be used"):
        prepare(listed(items), tmp_path / "none", how(crops=5, max_bad_fraction=0.09))


def test_near_duplicates_are_listed_once(tmp_path: Path, listed: type, how: How) -> None:
    """A test picture that training has, too, in another file: one pair, as without crops, and none among variants."""
    soft = photo(500).resize((4, 4)).resize((64, 64))
    items = [*photos(1, "test", 900), Sample(soft, "test.png", "x", "test"), *photos(60, "train")]
    items += [Sample(soft.resize((61, 61)), "train.png", "x", "train")]
    found = []
    for crops in (1, 4):
        near = NearDuplicates()
        prepare(listed(items), tmp_path / f"{crops}", how(crops=crops), near.add)
        found.append(list(near.found()))
    assert found[0] == found[1]
    assert [(pair.split, pair.like) for pair in found[0]] in ([("train", "test.png")], [("validation", "test.png")])


def test_watchers_see_every_row(tmp_path: Path, listed: type, how: How) -> None:
    """Which variant a row is, is told."""
    rows: list[tuple[str, Row]] = []
    prepare(listed(photos(60)), tmp_path / "out", how(crops=2), lambda split, row: rows.append((split, row)))
    train = [row.variant for split, row in rows if split == "train"]
    assert train == [0, 1] * (len(train) // 2)
    assert {row.variant for split, row in rows if split != "train"} == {0}


@pytest.mark.parametrize(
    ("recipe", "changes", "said"),
    [
        ("captioned", {"crops": 2, "resize": "pad"}, r"prepare_data.crops = 2 needs resize = 'crop', not 'pad'"),
        ("captioned", {"crops": 2, "resize": "squash"}, r"prepare_data.crops = 2 needs resize = 'crop', not 'squash'"),
        ("scenes", {"crops": 2}, r"prepare_data.crops = 2 is not for scenes, .*; give crops: 1"),
        ("captioned", {"crops": 0}, r"prepare_data\.crops"),
        ("captioned", {"crops": 1.5}, r"prepare_data\.crops"),
        ("captioned", {"crops": True}, r"prepare_data\.crops"),
    ],
)
def test_crops_that_make_no_sense_are_refused(
    recipe: str, changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    """By name, before any picture is read; with crops: 1 pad and squash are as they were."""
    lines = complete_text(ROOT / "recipes" / f"{recipe}.yaml").splitlines()

    def write(values: dict[str, object]) -> Path:
        wanted = {key: str(value).lower() for key, value in values.items()}
        own = [f"  {key}: {wanted[key]}" if (key := line.split(":")[0].strip()) in wanted else line for line in lines]
        (tmp_path / "params.yaml").write_text("\n".join(own))
        return tmp_path / "params.yaml"

    with pytest.raises(DarkroomError, match=said):
        load(write(changes))
    assert load(write(changes | {"crops": 1})).prepare_data.crops == 1
