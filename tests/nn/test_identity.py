"""The autoencoder of pixel-space recipes: pictures in a range of their own, and back without loss."""

import pytest
import torch

from darkroom.core.tensors import to_float, to_uint8
from tests.support.networks import identity

LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
RANGES = [(-1.0, 1.0), (0.0, 1.0), (-0.5, 3.0)]


@pytest.mark.parametrize(("black", "white"), RANGES)
def test_black_and_white_become_the_ends_of_the_range(black: float, white: float) -> None:
    mean, _ = identity(black, white).encode(to_float(LEVELS))
    assert (float(mean.min()), float(mean.max())) == pytest.approx((black, white), abs=1e-6)
    assert torch.equal(mean.flatten().argsort(), torch.arange(256))
    assert torch.allclose(mean.flatten().diff(), torch.full((255,), (white - black) / 255), atol=1e-6)


@pytest.mark.parametrize(("black", "white"), RANGES)
def test_every_grey_level_survives_the_way_there_and_back_even_through_a_cache_of_half_precision(
    black: float, white: float
) -> None:
    vae = identity(black, white)
    mean, _ = vae.encode(to_float(LEVELS))
    assert torch.equal(to_uint8(vae.decode(mean)), LEVELS)
    assert torch.equal(to_uint8(vae.decode(mean.half().float())), LEVELS)


def test_the_usual_range_changes_nothing_to_the_bit() -> None:
    vae, pictures = identity(-1.0, 1.0), to_float(LEVELS)
    assert torch.equal(vae.encode(pictures).mean, pictures)
    assert torch.equal(vae.decode(pictures), pictures)
