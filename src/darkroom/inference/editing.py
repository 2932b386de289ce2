"""Pictures that drawing starts from: read, padded, masked and redrawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from darkroom.config.sampling import Sampling
from darkroom.core.errors import DarkroomError
from darkroom.data.images import UnusablePictureError, with_channels
from darkroom.diffusion.denoiser import Conditions, Denoiser
from darkroom.diffusion.generate import initial_noise, sample_from, sampling_levels
from darkroom.diffusion.guidance import guided
from darkroom.diffusion.samplers._base import Noise, OnStep
from darkroom.diffusion.schedule import Level

Picture = Image.Image | Tensor
MASKED = 128  # grey level from which a mask asks for new pixels


@dataclass(frozen=True)
class Edit:
    """What is redrawn.

    latents: scaled (N, c, h, w). strength: share of the sampling steps that are taken, in [0, 1]. keep: (1, 1, h, w)
    bool, where latents stay as they are; None: nowhere.
    """

    latents: Tensor
    strength: float
    keep: Tensor | None = None

    def generate(
        self,
        denoiser: Denoiser,
        sampling: Sampling,
        start: Tensor,
        conditions: Conditions,
        noise: Noise,
        on_step: OnStep,
    ) -> Tensor:
        """Latents (N, c, h, w); arguments as of `diffusion.generate.generate`.

        The latents are brought to the level of the strength (Meng et al. 2022, "SDEdit"); strength 1 starts from noise
        alone and strength 0 changes nothing. What is kept is what the denoiser expects there at every step, so every
        sampler carries it along at its own level, and it ends exactly as it was.
        """
        known, keep, process = self.latents, self.keep, denoiser.process
        if self.strength == 0:
            return known
        levels = sampling_levels(sampling, process, denoiser.prediction_type, self.strength)
        x = initial_noise(sampling, process, levels, start)
        if self.strength < 1:
            x = levels[0].alpha * known + levels[0].sigma * start
        denoise = guided(denoiser, conditions, sampling.guidance_scale, sampling.guidance_rescale)
        if keep is None:
            return sample_from(denoise, sampling, process, x, levels, noise, on_step)

        def knowing(x: Tensor, level: Level) -> Tensor:
            return torch.where(keep, known, denoise(x, level))

        return torch.where(keep, known, sample_from(knowing, sampling, process, x, levels, noise, on_step))


def check_strength(strength: float) -> None:
    """Refuse a strength that is not in [0, 1].

    Raises:
        DarkroomError: names it and the range.
    """
    if not (math.isfinite(strength) and 0 <= strength <= 1):
        raise DarkroomError(
            f"strength = {strength}: give a number from 0 (the picture as it is) to 1 (a new one from noise)"
        )


def as_pictures(image: Picture | Sequence[Image.Image], channels: int) -> Tensor:
    """Pictures of one size as uint8 (M, channels, H, W), a copy.

    Args:
        image: PIL pictures of any mode, or a uint8 tensor (C, H, W) or (M, C, H, W).

    Raises:
        DarkroomError: no picture, pictures of several sizes, or a tensor of another kind.
    """
    if isinstance(image, Tensor):
        stack = image[None] if image.ndim == 3 else image
        if stack.dtype != torch.uint8 or stack.ndim != 4 or stack.shape[1] != channels or 0 in stack.shape:
            raise DarkroomError(
                f"image: a tensor {tuple(image.shape)} of {image.dtype}; give uint8 ({channels}, H, W) or a PIL picture"
            )
        return stack.cpu().clone()
    pictures = [image] if isinstance(image, Image.Image) else list(image)
    if not pictures:
        raise DarkroomError("image: none given; give at least one picture")
    if len(sizes := {picture.size for picture in pictures}) > 1:
        raise DarkroomError(f"image: pictures of several sizes, {sorted(sizes)}; draw those of one size at a time")
    try:
        arrays = [np.array(with_channels(picture, channels)) for picture in pictures]
    except UnusablePictureError as error:
        raise DarkroomError(f"image: {error}") from None
    stack = torch.from_numpy(np.stack(arrays))
    return stack[:, None] if channels == 1 else stack.permute(0, 3, 1, 2).contiguous()


def as_mask(mask: Picture, size: tuple[int, int]) -> Tensor:
    """Where new pixels are asked for: bool (1, 1, H, W).

    Args:
        mask: a PIL picture, see `mask_levels`, or a tensor (H, W) or (1, H, W), bool or uint8.
        size: (H, W) of the picture.

    Raises:
        DarkroomError: a mask of another size or kind.
    """
    if isinstance(mask, Tensor):
        values = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
        if values.ndim != 2 or values.dtype not in (torch.bool, torch.uint8):
            raise DarkroomError(f"mask: a tensor {tuple(mask.shape)} of {mask.dtype}; give bool or uint8 (H, W)")
        wanted = values.clone() if values.dtype == torch.bool else values >= MASKED
    else:
        wanted = mask_levels(mask)[0] >= MASKED
    if wanted.shape != size:
        (h, w), (height, width) = wanted.shape, size
        raise DarkroomError(f"mask: {w} x {h} pixels for a picture of {width} x {height}; give one of the same size")
    return wanted.cpu()[None, None]


def mask_levels(mask: Image.Image) -> Tensor:
    """The grey levels of a mask, uint8 (1, H, W), light where new pixels are wanted; transparent is laid on black.

    Raises:
        DarkroomError: pixels without a defined range.
    """
    if mask.has_transparency_data and not mask.mode.startswith(("I", "F")):  # those are grey alone
        mask = mask.convert("RGBA")
        mask = Image.alpha_composite(Image.new("RGBA", mask.size, "black"), mask)
    return as_pictures(mask, 1)[0]


def padded(pictures: Tensor, multiple: int) -> Tensor:
    """Float pictures (M, C, H, W) with their last row and column repeated up to sides divisible by `multiple`."""
    h, w = pictures.shape[2:]
    return F.pad(pictures, (0, -w % multiple, 0, -h % multiple), mode="replicate")


def kept(wanted: Tensor, multiple: int, downscale: int) -> Tensor:
    """Which latent positions hold no pixel that is asked for: (1, 1, H, W) bool -> (1, 1, h, w) bool."""
    h, w = wanted.shape[2:]
    filled = F.pad(wanted.float(), (0, -w % multiple, 0, -h % multiple))
    return F.max_pool2d(filled, downscale) == 0
