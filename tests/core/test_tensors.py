"""Pictures as numbers: nothing is lost or wrapped on the way."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from darkroom.core.tensors import image_grid, save_png, to_float, to_pil, to_uint8

ALL = torch.arange(256, dtype=torch.uint8)


def test_every_grey_level_survives_the_way_there_and_back() -> None:
    assert torch.equal(to_uint8(to_float(ALL)), ALL)
    assert to_float(ALL).min() == -1
    assert to_float(ALL).max() == 1


def test_values_beyond_the_range_are_clamped_and_never_wrapped() -> None:
    assert to_uint8(torch.tensor([-3.0, -1.001, 1.001, 3.0])).tolist() == [0, 0, 255, 255]
    assert to_uint8(torch.tensor([-1.0, 1.0], dtype=torch.bfloat16)).tolist() == [0, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_lays_pictures_row_by_row(channels: int) -> None:
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, channels, 4, 6)
    grid = image_grid(images, columns=3, pad=2)
    assert grid.shape == (channels, 2 * 6 + 2, 3 * 8 + 2)
    for i in range(5):
        y, x = 2 + (i // 3) * 6, 2 + (i % 3) * 8
        assert (grid[:, y : y + 4, x : x + 6] == i).all()
    assert (grid[:, :2] == 255).all()
    assert (grid[:, 8:12, 18:24] == 255).all()  # where a sixth would be


def test_a_grid_is_no_wider_than_it_has_pictures() -> None:
    assert image_grid(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), columns=8, pad=0).shape == (1, 4, 8)


def test_pictures_keep_their_colours_and_their_sides() -> None:
    image = torch.zeros(3, 2, 4, dtype=torch.uint8)
    image[0, 1, 3] = 200
    picture = to_pil(image)
    assert (picture.mode, picture.size) == ("RGB", (4, 2))
    assert picture.getpixel((3, 1)) == (200, 0, 0)
    assert to_pil(image[:1]).mode == "L"


def test_a_png_is_written_as_it_is_or_with_larger_pixels(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 2, 4), dtype=torch.uint8)
    save_png(tmp_path / "a.png", image)
    save_png(tmp_path / "b.png", to_pil(image), scale=3)
    small, large = (Image.open(tmp_path / name) for name in ("a.png", "b.png"))
    assert small.tobytes() == to_pil(image).tobytes()
    assert large.size == (12, 6)
    assert large.getpixel((11, 5)) == small.getpixel((3, 1))
    save_png(tmp_path / "c.png", image)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "c.png").read_bytes()
