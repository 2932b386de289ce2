"""From noise to samples: a grid of levels, a guided denoiser, a sampler."""

from typing import cast

import torch
from torch import Tensor

from darkroom.config.choices import NOISE_PREDICTIONS, PredictionType
from darkroom.config.sampling import Sampling
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.denoiser import Conditions, Denoiser
from darkroom.diffusion.grids import level_grid, shortened
from darkroom.diffusion.guidance import guided
from darkroom.diffusion.process import Process, check_prediction
from darkroom.diffusion.samplers._base import Denoise, Noise, OnStep, Sampler
from darkroom.diffusion.schedule import Level


def ignore_step(step: int, x: Tensor, x0: Tensor) -> None:
    """The default `on_step`: does nothing."""


def sampling_levels(
    sampling: Sampling, process: Process, prediction_type: PredictionType, strength: float = 1.0
) -> list[Level]:
    """The levels to go through; of all of them, only the share `strength` in (0, 1], see `shortened`.

    Raises:
        DarkroomError: a number of steps out of range, or a sampler, prediction or spacing that does not go with the
            others or with the process. For any model, also imported ones; `config.diffusion.check_sampling` says it of
            params.yaml's keys.
    """
    check_prediction(process, prediction_type)
    if sampling.sampler.needs_noise_prediction and prediction_type not in NOISE_PREDICTIONS:
        raise DarkroomError(
            f"sampler = {sampling.sampler.kind!r}: extrapolates the network's own output, which must be epsilon; "
            f"this model's prediction_type is {prediction_type!r}: choose dpmpp_2m or another"
        )
    levels = level_grid(
        process,
        sampling.num_inference_steps,
        sampling.spacing,
        sampling.steps_offset,
        omit_last=sampling.omit_last,
        set_alpha_to_one=sampling.set_alpha_to_one,
        karras=sampling.karras,
    )
    return levels if strength == 1 else shortened(process, levels, strength)


def initial_noise(sampling: Sampling, process: Process, levels: list[Level], start: Tensor) -> Tensor:
    """x at levels[0], scaled from unit noise `start`."""
    return (process.spread if sampling.initial_scale == "one" else levels[0].sigma) * start


def generate(
    denoiser: Denoiser,
    sampling: Sampling,
    start: Tensor,
    conditions: Conditions,
    noise: Noise,
    on_step: OnStep = ignore_step,
) -> Tensor:
    """Samples (N, C, H, W) of the model.

    Args:
        start: unit Gaussian noise (N, C, H, W).
        conditions: of N samples each.
        noise: 0, 1, 2, … -> Gaussian noise shaped like start, another for each number; a sampler may ask for several a
            step.
    """
    levels = sampling_levels(sampling, denoiser.process, denoiser.prediction_type)
    x = initial_noise(sampling, denoiser.process, levels, start)
    denoise = guided(denoiser, conditions, sampling.guidance_scale, sampling.guidance_rescale)
    return sample_from(denoise, sampling, denoiser.process, x, levels, noise, on_step)


@torch.no_grad()
def sample_from(
    denoise: Denoise,
    sampling: Sampling,
    process: Process,
    x: Tensor,
    levels: list[Level],
    noise: Noise,
    on_step: OnStep = ignore_step,
) -> Tensor:
    """Take x (N, C, H, W), a sample at levels[0], to levels[-1]; see `samplers`.

    Args:
        denoise: (x, level) -> x0, guided; see `guidance.guided`.
    """
    sampler = cast(Sampler, sampling.sampler)  # config knows only SamplerOptions, without rules
    return sampler.rule(process.at_ratio)(denoise, x, levels, noise, on_step)
