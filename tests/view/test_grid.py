"""Grids of pictures: each in its place, none wider than its pictures."""

import pytest
import torch

from darkroom.view.grid import image_grid


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
