"""Building blocks: time embedding, identity at initialisation, sides."""

from typing import Any

import pytest
import torch

from darkroom.nn.layers.blocks import (
    Downsample2D,
    ResnetBlock2D,
    Upsample2D,
    timestep_embedding,
    zero_,
)
from tests.support.measures import Difference


@pytest.mark.parametrize(("dim", "flip", "shift"), [(8, True, 0.0), (32, False, 1.0), (7, True, 0.5)])
def test_timestep_embedding_is_diffusers(
    diffusers: Any, relative_difference: Difference, dim: int, flip: bool, shift: float
) -> None:
    from diffusers.models.embeddings import get_timestep_embedding

    t = torch.tensor([0.0, 0.5, 37.25, 999.0])
    expected = get_timestep_embedding(t, dim, flip_sin_to_cos=flip, downscale_freq_shift=shift)
    assert relative_difference(timestep_embedding(t, dim, flip, shift), expected) <= 1e-6


def test_a_block_whose_last_convolution_is_zero_is_exactly_the_identity() -> None:
    block = ResnetBlock2D(8, 8, temb_dim=12, groups=2, eps=1e-5)
    x, temb = torch.randn(2, 8, 5, 5), torch.randn(2, 12)
    assert not torch.equal(block(x, temb), x)
    zero_(block.conv2)
    assert torch.equal(block(x, temb), x)


def test_the_time_embedding_moves_the_block() -> None:
    block = ResnetBlock2D(8, 8, temb_dim=12, groups=2, eps=1e-5)
    x = torch.randn(2, 8, 5, 5)
    assert not torch.allclose(block(x, torch.zeros(2, 12)), block(x, torch.ones(2, 12)))


@pytest.mark.parametrize(("side", "half"), [(8, 4), (7, 4)])
def test_sides(side: int, half: int) -> None:
    x = torch.randn(1, 4, side, side)
    assert Downsample2D(4)(x).shape == (1, 4, half, half)
    assert Downsample2D(4, asymmetric=True)(x).shape == (1, 4, side // 2, side // 2)
    assert Upsample2D(4)(x).shape == (1, 4, 2 * side, 2 * side)
    assert Upsample2D(4)(x, (13, 9)).shape == (1, 4, 13, 9)
