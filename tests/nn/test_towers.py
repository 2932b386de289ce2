"""Image and text towers: one space of unit vectors, word order, the bound of the scale."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from darkroom.nn.judge.conv_tower import GRID, averaged
from darkroom.nn.judge.towers import Towers
from tests.support import networks


@pytest.fixture
def towers() -> Towers:
    made: Towers = networks.built(networks.towers(networks.text(20, act="gelu", special=networks.tokens(0, 0))))
    return made


def test_pictures_and_captions_are_unit_vectors_of_one_space(towers: Any) -> None:
    images, words = torch.randn(3, 3, 32, 32), torch.tensor([[4, 5, 0, 0], [5, 4, 0, 0]])
    pictures, texts = towers.embed_images(images), towers.embed_texts(words)
    torch.testing.assert_close(pictures.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(
        towers.compare(towers.embed_images(images), towers.embed_texts(words)), pictures @ texts.T / 0.07
    )


def test_captions_are_read_in_order_and_their_padding_is_not(towers: Any) -> None:
    forth, back = towers.embed_texts(torch.tensor([[4, 5, 0, 0], [5, 4, 0, 0]]))
    assert not torch.allclose(forth, back)
    torch.testing.assert_close(towers.embed_texts(torch.tensor([[4, 5, 0, 0, 0, 0]]))[0], forth)


def test_the_scale_stays_bounded(towers: Any) -> None:
    with torch.no_grad():
        towers.log_scale += 10
    assert towers.logit_scale == 100


def test_every_weight_learns(towers: Any) -> None:
    pictures, texts = torch.randn(2, 3, 28, 28), torch.tensor([[4, 5, 0], [7, 0, 0]])
    towers.compare(towers.embed_images(pictures), towers.embed_texts(texts)).logsumexp(1).sum().backward()
    assert [n for n, p in towers.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_a_picture_is_embedded_place_by_place(towers: Any) -> None:
    """What the text has to tell is where things are: moving them moves the embedding's cells, and adds nothing up."""
    grid = torch.randn(1, 64, 4, 4)
    towers.trunk = torch.nn.Identity()
    moved = grid.flip(3)
    cells, flipped = (towers.embed_images(g).view(-1, 4, 4) for g in (grid, moved))
    torch.testing.assert_close(cells.flip(2), flipped)
    assert not torch.allclose(cells, flipped)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [4, 8, 16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_means_over_windows_are_pytorchs_to_the_bit(dtype: torch.dtype, side: int, layout: Any) -> None:
    """Would catch a pooling that changes what judges and towers compute; PyTorch's own is not deterministic on CUDA."""
    grids = [torch.randn(2, 16, side, side, dtype=dtype).to(memory_format=layout) for _ in range(2)]
    x, weight = grids[0].requires_grad_(), torch.randn(2, 16, GRID, GRID, dtype=dtype)
    pooled, expected = averaged(x, GRID), F.adaptive_avg_pool2d(x, GRID)
    assert torch.equal(pooled, expected)
    gradients = [torch.autograd.grad(y, x, weight)[0] for y in (pooled, expected)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("shape", [(5, 7), (1, 3), (6, 4), (9, 13)])
def test_windows_that_do_not_divide_the_picture_overlap_as_pytorchs(shape: tuple[int, ...]) -> None:
    x, weight = torch.randn(2, 3, *shape, requires_grad=True), torch.randn(2, 3, GRID, GRID)
    pooled, expected = averaged(x, GRID), F.adaptive_avg_pool2d(x, GRID)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, weight)[0] for y in (pooled, expected)))
