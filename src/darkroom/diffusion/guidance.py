"""Condition dropout and classifier-free guidance: two halves of one idea, around one null condition.

In training a part of the samples sees the null condition instead of its own, so that one network learns both the
conditional and the unconditional distribution; in sampling the two are combined (Ho & Salimans 2022, eq. 6).
"""

import torch
from torch import Tensor

from darkroom.core.errors import DarkroomError
from darkroom.diffusion.denoiser import Condition, Denoise, Denoiser
from darkroom.diffusion.schedule import Level


def dropout_mask(n: int, probability: float, generator: torch.Generator) -> Tensor:
    """Which of n samples see the null condition: (n,) bool. Probability 0 drops none and 1 drops all, exactly."""
    return torch.rand(n, generator=generator) < probability


def drop_condition(given: Tensor, null: Tensor, mask: Tensor) -> Tensor:
    """`given` (N, ...) with the rows where `mask` (N,) is set replaced by `null` (...)."""
    return torch.where(mask.view(-1, *[1] * (given.ndim - 1)), null, given)


def guided(denoise: Denoise, null: Condition, guidance_scale: float, guidance_rescale: float = 0.0) -> Denoise:
    """D_null + guidance_scale * (D_condition - D_null), both halves evaluated as one batch.

    Scale 1 is the conditional model itself, at half the work. Applied to x0 this equals the paper's combination of
    epsilon, since the two are linear in each other at a fixed x and level.

    Args:
        null: the null condition, of as many samples as will be denoised at once.
        guidance_rescale: in [0, 1], how far the guided output is brought back to the spread of the conditional one (Lin
            et al. 2024, eq. 14-16). Defined on what a network answers, so `denoise` must then be a `Denoiser`.

    Raises:
        DarkroomError: a rescale for something that is no network.
    """
    if guidance_scale == 1:
        return denoise
    joined: list[tuple[Condition, Condition]] = []  # the last condition, with what was made of it: constant over a run

    def both(condition: Condition) -> Condition:
        if not joined or joined[0][0] is not condition:
            joined[:] = [(condition, null.cat(condition))]
        return joined[0][1]

    def guided_denoise(x: Tensor, level: Level, condition: Condition) -> Tensor:
        without, with_condition = denoise(torch.cat([x, x]), level, both(condition)).chunk(2)
        return without + guidance_scale * (with_condition - without)

    if guidance_rescale == 0:
        return guided_denoise
    if not isinstance(denoise, Denoiser):
        raise DarkroomError(
            f"guidance_rescale = {guidance_rescale}: is defined on a network's output, which this denoiser does not "
            "show; give 0"
        )

    def rescaled_denoise(x: Tensor, level: Level, condition: Condition) -> Tensor:
        without, with_condition = denoise.output(torch.cat([x, x]), level, both(condition)).chunk(2)
        output = without + guidance_scale * (with_condition - without)
        ratio = _std(with_condition) / _std(output)
        return denoise.x0((guidance_rescale * ratio + 1 - guidance_rescale) * output, x, level)

    return rescaled_denoise


def _std(x: Tensor) -> Tensor:
    """The spread of each sample (N, C, H, W) -> (N, 1, 1, 1)."""
    return x.std(dim=(1, 2, 3), keepdim=True)
