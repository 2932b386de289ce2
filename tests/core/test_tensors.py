"""Pictures as numbers: nothing is lost or wrapped on the way."""

from pathlib import Path

import torch
from PIL import Image

from darkroom.core.tensors import save_png, to_float, to_pil, to_uint8

ALL = torch.arange(256, dtype=torch.uint8)


def test_every_grey_level_survives_the_way_there_and_back() -> None:
    assert torch.equal(to_uint8(to_float(ALL)), ALL)
    assert to_float(ALL).min() == -1
    assert to_float(ALL).max() == 1


def test_values_beyond_the_range_are_clamped_and_never_wrapped() -> None:
    assert to_uint8(torch.tensor([-3.0, -1.001, 1.001, 3.0])).tolist() == [0, 0, 255, 255]
    assert to_uint8(torch.tensor([-1.0, 1.0], dtype=torch.bfloat16)).tolist() == [0, 255]


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
