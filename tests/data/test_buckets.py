"""Buckets by aspect ratio in the prepared data: little is cut off, nothing is lost, and a rerun has the same bytes.

600 pictures of seven usual shapes (1:1, 4:3, 3:2, 16:9 and upright), in buckets of at most 64 x 64 pixels.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.config.buckets import BucketGrid
from darkroom.config.sections import Preparation
from darkroom.core.artifact import content_hash
from darkroom.core.errors import DarkroomError
from darkroom.data.buckets import cropped_share, largest_part, nearest
from darkroom.data.halves import halves
from darkroom.data.images import conform
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Info, Prepared
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.view.contact_sheet import contact_sheet
from tests.support.settings import preparation
from tests.support.shapes import SHAPES, write_shapes

N = 600
GRID = {"area": 4096, "step": 8, "max_aspect": 2.0}


def how(buckets: Any) -> Preparation:
    return preparation(image_size=64, buckets=buckets, repeats="merge_captions")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_shapes(folder, N)
    return folder


@pytest.fixture(scope="module")
def bucketed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    out = tmp_path_factory.mktemp("bucketed") / "prepared"
    prepare(CaptionedFolder(str(pictures)), out, how(GRID))
    return Prepared.open(out)


def test_little_is_cut_off_where_squares_lose_a_quarter(bucketed: Prepared, pictures: Path, tmp_path: Path) -> None:
    """Catches pictures in a bucket that is not the nearest, and a share that leaves some of them out."""
    squares = prepare(CaptionedFolder(str(pictures)), tmp_path / "squares", how(None))
    assert bucketed.info.cropped_share <= 0.03
    assert 0.25 <= squares.cropped_share <= 0.3
    assert squares.buckets == ()
    measured = [cropped_share(h, w, bucketed.info.sizes[nearest(bucketed.info.sizes, h, w)]) for w, h in SHAPES]
    assert bucketed.info.cropped_share == pytest.approx(np.mean(measured), abs=1e-3)


def test_a_rerun_has_the_same_bytes(bucketed: Prepared, pictures: Path, tmp_path: Path) -> None:
    prepare(CaptionedFolder(str(pictures)), tmp_path / "again", how(GRID))
    assert content_hash(tmp_path / "again") == content_hash(bucketed.root)


def test_every_picture_is_in_one_bucket_in_its_size_and_is_found_by_its_row(bucketed: Prepared) -> None:
    """Catches rows that are counted across buckets, and captions that are not of the picture they stand by."""
    info = bucketed.info
    assert sum(of.pictures for of in info.buckets) == info.pictures.kept == N
    for name, rows in info.splits.items():
        split = bucketed.split(name)
        assert sum(map(len, split.runs)) == rows == len(split) == sum(of.splits.get(name, 0) for of in info.buckets)
        for size, run in zip(split.sizes, split.runs, strict=True):
            together = split.images(run)
            assert tuple(together.shape[2:]) == size
            lazily = bucketed.split(name, in_memory=False).images([run.stop - 1])
            assert torch.equal(lazily[0], together[-1])
            assert split.squares([run.start]).shape == (1, 3, 64, 64)
        colours = {"red": (214, 60, 52), "green": (60, 160, 84), "blue": (52, 92, 200), "yellow": (232, 196, 64)}
        for row in range(0, len(split), 7):
            said = next(name for name in colours if name in split.captions[row])
            apart = (split.images([row])[0].float() - torch.tensor(colours[said])[:, None, None]).abs().amax(dim=0)
            assert int((apart < 25).sum()) > 20, split.captions[row]


def test_sizes_do_not_mix_and_squares_do(bucketed: Prepared) -> None:
    split = bucketed.split("train")
    ends = [split.runs[0].start, split.runs[1].start]
    with pytest.raises(DarkroomError, match="do not go into one batch"):
        split.images(ends)
    assert split.squares(ends).shape == (2, 3, 64, 64)
    assert torch.equal(halves(split)[ends], halves(split, torch.tensor(ends)))
    spread = split.spread(40)
    assert len(spread) == 40
    assert len(list(split.by_size(spread))) == len(split.runs)
    assert spread.tolist() == sorted(set(spread.tolist()))


def test_the_sheet_has_a_row_for_each_bucket(bucketed: Prepared, tmp_path: Path) -> None:
    contact_sheet(bucketed.split("train"), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 132 * len(bucketed.info.buckets)


def test_the_description_is_read_as_it_was_written(bucketed: Prepared) -> None:
    assert Info.read(bucketed.root) == bucketed.info


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((100, 100), (64, 64)), ((100, 150), (48, 72)), ((9, 300), (40, 80)), ((100, 105), (64, 64)), ((10, 7), (80, 56))],
)
def test_the_nearest_ratio_by_its_logarithm(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    sizes = [(40, 80), (48, 72), (64, 64), (72, 48), (80, 56), (80, 40)]
    assert sizes[nearest(sizes, *size)] == wanted


def test_of_two_equally_near_the_larger_and_then_the_first() -> None:
    """Catches a choice that depends on rounding: 100 x 100 lies as far from 1:2 as from 2:1."""
    assert nearest([(40, 80), (80, 40)], 100, 100) == 0
    assert nearest([(80, 40), (40, 80)], 100, 100) == 0
    assert nearest([(40, 80), (88, 44)], 100, 100) == 1


def test_a_grid_has_the_sizes_that_its_area_allows() -> None:
    sizes = BucketGrid.model_validate(GRID).sizes
    assert (64, 64) in sizes
    assert {(w, h) for h, w in sizes} == set(sizes)
    for height, width in sizes:
        assert height * width <= 4096 < (height + 8) * (width + 8)
        assert max(height, width) <= 2 * min(height, width)
    gaps = sorted(w / h for h, w in sizes)
    assert max(b / a for a, b in pairwise(gaps)) <= 1.2


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_a_picture_gets_the_size_of_its_bucket(resize: str) -> None:
    picture = np.full((40, 100, 3), 200, np.uint8)
    picture[:, :2] = picture[:, -2:] = 0
    found = conform(picture, (24, 48), 3, resize)
    assert found.shape == (24, 48, 3)
    inside = found[found.shape[0] // 2, 1:-1]
    assert (inside == 200).all() == (resize == "crop")
    assert largest_part(40, 100, (24, 48)) == (40, 80)
    assert cropped_share(40, 100, (24, 48)) == pytest.approx(0.2)
