"""What a noise process makes of pictures: in one range, readable at every level, drawn the same every time."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from darkroom.config.diffusion import VEProcess
from darkroom.core.rng import randn_each
from darkroom.core.tensors import to_float
from darkroom.diffusion.process import Process
from darkroom.view.forward import FRACTIONS, forward, forward_of_pictures, log_snr
from darkroom.view.sheet import GUTTER, JOINT, LINE, PICTURE
from darkroom.view.trace import contrast
from tests.support.diffusion import make_flow, make_ve, make_vp, vp_config

VP: dict[str, Any] = {"schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "times": 300, "scale_betas": True}
VP_KIND = vp_config(**VP)
VE_KIND = VEProcess(kind="ve", sigma=25.0, t_min=1e-5)
SIDE = 16  # divides a picture's side on the sheet
PICTURES = torch.randint(0, 256, (2, 1, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def cell(made: Image.Image, row: int, column: int) -> NDArray[np.int64]:
    """A picture of the sheet, in its own pixels."""
    left = 2 * GUTTER + PICTURE + column * (PICTURE + JOINT)
    top = GUTTER + LINE + row * (PICTURE + JOINT)
    shown = np.asarray(made.crop((left, top, left + PICTURE, top + PICTURE))).astype(np.int64)
    zoom = PICTURE // SIDE
    return shown[zoom // 2 :: zoom, zoom // 2 :: zoom, 0]


def rows(made: Image.Image) -> int:
    """How many rows of pictures there are above the curve, which is 300 pixels high."""
    return (made.height - 300 - GUTTER - LINE) // (PICTURE + JOINT)


def grey(shown: torch.Tensor) -> NDArray[np.int64]:
    """Values in [-1, 1], clipped, as grey levels."""
    return ((shown.clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.int64)


def test_a_preserving_process_is_shown_as_it_is_in_one_range() -> None:
    made = forward_of_pictures(PICTURES, ["a", "b"], VP_KIND, -1.0, 1.0)
    assert rows(made) == 2
    process, eps = make_vp(**VP), randn_each((1, SIDE, SIDE), [0, 1], "forward")
    for row in range(2):
        assert np.array_equal(cell(made, row, 0), PICTURES[row, 0].numpy())
        for column, share in enumerate(FRACTIONS, 1):
            level = process.level(share * 299)
            x = level.alpha * to_float(PICTURES[row, 0]) + level.sigma * eps[row, 0]
            assert np.abs(cell(made, row, column) - grey(x)).max() <= 1


@pytest.mark.parametrize(("black", "white"), [(0.0, 1.0), (-1.0, 1.0)])
def test_an_exploding_process_is_shown_clipped_and_below_with_less_contrast(black: float, white: float) -> None:
    made = forward_of_pictures(PICTURES, ["a", "b"], VE_KIND, black, white)
    assert rows(made) == 4
    process, eps = make_ve(25.0, 1e-5), randn_each((1, SIDE, SIDE), [0, 1], "forward")
    for i in range(2):
        for column, share in enumerate(FRACTIONS, 1):
            sigma = process.level(1000 * share).sigma
            x = to_float(PICTURES[i, 0]) + sigma * eps[i, 0] * 2 / (white - black)
            assert np.abs(cell(made, 2 * i, column) - grey(x)).max() <= 1
            assert np.abs(cell(made, 2 * i + 1, column) - grey(x / math.sqrt(1 + sigma**2))).max() <= 1
        assert np.array_equal(cell(made, 2 * i + 1, 0), PICTURES[i, 0].numpy())
    clipped = [np.isin(cell(made, row, 4), (0, 255)).mean() for row in (0, 1)]
    assert clipped[0] > 0.8
    assert clipped[1] < clipped[0] - 0.1


def test_contrast_is_only_ever_lowered_and_only_where_noise_is_beyond_the_range() -> None:
    for sigma in (0.0, 0.3, 0.9, 1.0):
        assert contrast(math.sqrt(1 - sigma**2), sigma) == pytest.approx(1)
        assert contrast(1 - sigma, sigma) == 1  # rectified flow
    assert contrast(1.0, math.sqrt(99)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "process",
    [
        make_vp(**VP),
        make_vp("cosine", 0.0001, 0.02, 1000, rescale_betas_zero_snr=True),
        make_ve(25.0, 1e-5),
        make_flow(1e-3),
    ],
    ids=["linear", "zero snr", "ve", "flow"],
)
def test_every_process_can_be_shown_in_any_latents_and_always_the_same(process: Process) -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))

    def to_rgb(x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("oc,nchw->nohw", weight, x)

    x0: Any = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    made = forward(x0, ["a", "b", "c"], process, to_rgb, 0.0)
    assert rows(made) == 3 * (1 + (process.spread > 1))
    assert made.tobytes() == forward(x0, ["a", "b", "c"], process, to_rgb, 0.0).tobytes()
    falling = [log_snr(process.level(share * process.latest)) for share in FRACTIONS]
    assert falling == sorted(falling, reverse=True)
