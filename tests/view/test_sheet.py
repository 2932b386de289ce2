"""Where pictures, captions and marks stand on a sheet."""

import numpy as np
import pytest
from PIL import Image

from darkroom.view.sheet import (
    GUTTER,
    JOINT,
    LINE,
    PAPER,
    PICTURE,
    Moment,
    Plate,
    enlarged,
    sheet,
    strip,
    table,
)


def flat(red: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (red, 0, 0))


def test_pictures_stand_side_by_side_row_after_row() -> None:
    plates = [Plate([flat(10 * i + 1), flat(10 * i + 2)], f"caption {i}") for i in range(3)]
    made = sheet(plates, columns=2)
    cell = PICTURE + LINE + GUTTER
    wide = 2 * PICTURE + JOINT
    assert made.size == (GUTTER + 2 * (wide + GUTTER), GUTTER + 2 * cell)
    for i in range(3):
        x, y = GUTTER + (i % 2) * (wide + GUTTER), GUTTER + (i // 2) * cell
        for k in range(2):
            left = x + k * (PICTURE + JOINT)
            block = np.asarray(made.crop((left, y, left + PICTURE, y + PICTURE)))
            assert (block == (10 * i + 1 + k, 0, 0)).all()
        below = np.asarray(made.crop((x, y + PICTURE, x + wide, y + PICTURE + LINE)))
        assert (below.min(-1) < 100).sum() > 50


@pytest.mark.parametrize(("verdict", "colour"), [(True, "green"), (False, "red"), (None, None)])
def test_a_verdict_is_a_small_mark_in_its_colour(verdict: bool | None, colour: str | None) -> None:
    red, green, _ = np.asarray(sheet([Plate([flat(0)], "", verdict)], columns=1)).astype(int).reshape(-1, 3).T
    marked = {"green": int((green > red + 20).sum()), "red": int((red > green + 20).sum())}
    assert {name for name, n in marked.items() if n} == ({colour} if colour else set())
    assert max(marked.values()) < 100


def test_a_table_has_a_row_a_caption_and_a_column_a_heading() -> None:
    rows = [Plate([flat(1), flat(2), flat(3)], "a caption"), Plate([flat(4), flat(5), flat(6)], "another")]
    made = table(["one", "two", "three"], rows)
    seen = np.unique(np.asarray(made)[..., 0][(np.asarray(made)[..., 1:] == 0).all(-1)])
    assert seen.tolist() == [1, 2, 3, 4, 5, 6]
    first = np.argwhere((np.asarray(made) == (6, 0, 0)).all(-1))
    assert np.ptp(first, axis=0).tolist() == [PICTURE - 1, PICTURE - 1]
    assert made.getpixel((made.width - 1, 0)) == PAPER


def test_a_strip_has_two_rows_a_picture_and_a_column_a_moment() -> None:
    moments = [Moment(f"step {k}", [flat(10 + k), flat(20 + k)], [flat(30 + k), flat(40 + k)]) for k in range(3)]
    made = np.asarray(strip(["one", "two"], moments))
    left, top = 2 * GUTTER + PICTURE, GUTTER + LINE
    for row, first in enumerate((10, 30, 20, 40)):
        for k in range(3):
            y, x = top + row * (PICTURE + JOINT), left + k * (PICTURE + JOINT)
            assert (made[y : y + PICTURE, x : x + PICTURE] == (first + k, 0, 0)).all()


def test_small_pictures_keep_their_pixels_and_large_ones_shrink() -> None:
    checks = Image.fromarray((np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8))
    assert set(np.unique(np.asarray(enlarged(checks)))) == {0, 255}
    large = enlarged(Image.new("L", (300, 300), 7))
    assert (large.size, large.mode, large.getpixel((5, 5))) == ((PICTURE, PICTURE), "RGB", (7, 7, 7))
