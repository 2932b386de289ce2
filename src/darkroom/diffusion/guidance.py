"""Condition dropout and classifier-free guidance: two halves of one idea, around one null condition.

In training a part of the samples sees the null condition instead of its own, so that one network learns both the
conditional and the unconditional distribution; in sampling the two are combined (Ho & Salimans 2022, eq. 6).
"""

import torch
from torch import Tensor

from darkroom.diffusion.denoiser import Conditions, Denoiser
from darkroom.diffusion.samplers._base import Denoise
from darkroom.diffusion.schedule import Level


def dropout_mask(n: int, probability: float, generator: torch.Generator) -> Tensor:
    """Which of n samples see the null condition: (n,) bool. Probability 0 drops none and 1 drops all, exactly."""
    return torch.rand(n, generator=generator) < probability


def drop_condition(condition: Tensor, null: Tensor, mask: Tensor) -> Tensor:
    """`condition` (N, ...) with the rows where `mask` (N,) is set replaced by `null` (...)."""
    return torch.where(mask.view(-1, *[1] * (condition.ndim - 1)), null, condition)


def guided(denoiser: Denoiser, conditions: Conditions, guidance_scale: float, guidance_rescale: float = 0.0) -> Denoise:
    """D_null + guidance_scale * (D_condition - D_null), both halves evaluated as one batch.

    Scale 1 is the conditional model itself, at half the work. Applied to x0 this equals the paper's combination of
    epsilon, since the two are linear in each other at a fixed x and level. The network prepares its conditions here,
    once for all steps.

    Args:
        conditions: of as many samples as will be denoised at once.
        guidance_rescale: in [0, 1], how far the guided output is brought back to the spread of the conditional one (Lin
            et al. 2024, eq. 14-16). Defined on what a network answers.
    """
    if guidance_scale == 1:
        asked = denoiser.network.prepare(conditions.asked)
        return lambda x, level: denoiser(x, level, asked)
    both = denoiser.network.prepare(conditions.null, conditions.asked)

    def guided_denoise(x: Tensor, level: Level) -> Tensor:
        without, with_condition = denoiser(torch.cat([x, x]), level, both).chunk(2)
        return without + guidance_scale * (with_condition - without)

    def rescaled_denoise(x: Tensor, level: Level) -> Tensor:
        without, with_condition = denoiser.output(torch.cat([x, x]), level, both).chunk(2)
        output = without + guidance_scale * (with_condition - without)
        ratio = _std(with_condition) / _std(output)
        return denoiser.x0((guidance_rescale * ratio + 1 - guidance_rescale) * output, x, level)

    return guided_denoise if guidance_rescale == 0 else rescaled_denoise


def _std(x: Tensor) -> Tensor:
    """The standard deviation of each sample (N, C, H, W) -> (N, 1, 1, 1)."""
    return x.std(dim=(1, 2, 3), keepdim=True)
