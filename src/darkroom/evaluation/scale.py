"""What a distance is compared with: bad pictures, made from the real ones."""

import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.core.rng import generator
from darkroom.core.tensors import to_float, to_uint8

BLUR = 1 / 8  # standard deviation of the Gaussian, in sides of the picture: colours stay, shapes do not
BLURRED = "blurred"
BAD = ("noise", "mean_colour", BLURRED)
CLEARANCE = 5.0  # so many times the distance of real from real pictures is that of each of BAD at least


def bad_pictures(images: Tensor, seed: int) -> dict[str, Tensor]:
    """As many of each of BAD as real pictures uint8 (N, C, H, W): uniform noise; each mean colour; each blurred."""
    noise = torch.randint(0, 256, images.shape, generator=generator(seed, "scale"), dtype=torch.uint8)
    mean = images.float().mean(dim=(2, 3), keepdim=True).round().to(torch.uint8).expand_as(images).contiguous()
    return dict(zip(BAD, (noise, mean, blurred(images)), strict=True))


def describe_blur(side: int) -> str:
    """How pictures of `side` pixels are blurred, in words."""
    return f"a Gaussian with a standard deviation of {BLUR:g} of the side, {BLUR * side:g} pixels"


def blurred(images: Tensor) -> Tensor:
    """Pictures uint8 (N, C, H, W) under a Gaussian of BLUR, edges repeated."""
    x = to_float(images)
    sigma = BLUR * images.shape[-1]
    reach = max(round(3 * sigma), 1)
    line = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    line = line / line.sum()
    channels = x.shape[1]
    across = line.expand(channels, 1, 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), "replicate"), across, groups=channels)
    return to_uint8(F.conv2d(F.pad(x, (0, 0, reach, reach), "replicate"), across.transpose(2, 3), groups=channels))


def fault(real: float, bad: dict[str, float], closer_is_better: bool) -> str:
    """Why a figure does not tell good pictures from bad ones; "" where it does.

    A share is compared as it stands, not by what it lacks of 1. Of real pictures that lack is small and may be 0: five
    times .01 would let through a precision that gives blurred pictures .94. So bad pictures must get a fifth of the
    share of real ones at most, which caps at .2 what a figure that is shown gives any of them.

    Args:
        real: its value for real pictures. bad: its value for each of BAD.
        closer_is_better: it is a distance, and each of `bad` must have CLEARANCE times `real`; otherwise a share, such
            as precision, and `real` must be CLEARANCE times each of `bad`.
    """
    for name, value in bad.items():
        small, large = (real, value) if closer_is_better else (value, real)
        if large <= 0 or large < CLEARANCE * small:
            return (
                f"{name.replace('_', ' ')} has {value:.3g} and real pictures have {real:.3g} at the same number of "
                f"pictures, less than {CLEARANCE:g} times apart: it does not tell good pictures from bad ones"
            )
    return ""
