"""From noise to samples: a grid of levels, a guided denoiser, a sampler."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args

from torch import Tensor

from darkroom.config.choices import (
    EPSILON_ONLY,
    NOISE_PREDICTIONS,
    SAMPLER_OPTIONS,
    SNR,
    TOLERANCE,
    InitialScale,
    PredictionType,
    SamplerName,
    Spacing,
    Variance,
)
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.denoiser import Condition, Denoise, Denoiser
from darkroom.diffusion.grids import level_grid, shortened
from darkroom.diffusion.guidance import guided
from darkroom.diffusion.process import Process, check_prediction
from darkroom.diffusion.samplers import Noise, OnStep, ignore_step, sample
from darkroom.diffusion.schedule import Level


@dataclass(frozen=True)
class Sampling:
    """How to sample: which rule, in how many steps, at which times, with how much guidance (1 = none).

    spacing, steps_offset, omit_last, set_alpha_to_one, karras: see `level_grid`.
    initial_scale: the walk begins with noise of spread "one" (times the process', which is 1 but for variance-exploding
        ones), or of the first level's "sigma", as diffusers' Euler and Heun do for trailing and linspace.
    eta: of ddim, 0 to 1. variance: of ddpm's noise, beta-tilde or beta (Ho et al. 2020, section 3.2). snr: of
        predictor_corrector, of the corrector's steps. tolerance: of ode, which takes as many evaluations as that asks
        for, and num_inference_steps only to show how it gets on.
    guidance_rescale: see `guided`.

    Raises:
        DarkroomError: an unknown name, a number out of range, or a choice that the sampler does not take.
    """

    sampler: SamplerName
    num_inference_steps: int
    guidance_scale: float
    spacing: Spacing
    steps_offset: int = 0
    omit_last: bool = False
    set_alpha_to_one: bool = True
    karras: bool = False
    initial_scale: InitialScale = "one"
    eta: float = 0.0
    variance: Variance = "beta_tilde"
    snr: float = SNR
    tolerance: float = TOLERANCE
    guidance_rescale: float = 0.0

    def __post_init__(self) -> None:
        for key, choices in {
            "sampler": SamplerName,
            "spacing": Spacing,
            "initial_scale": InitialScale,
            "variance": Variance,
        }.items():
            if (value := getattr(self, key)) not in get_args(choices):
                raise DarkroomError(f"{key} = {value!r}: unknown; choose from {', '.join(get_args(choices))}")
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise DarkroomError(f"guidance_scale = {self.guidance_scale}: give 0 or more; 1 is no guidance")
        if self.steps_offset < 0:
            raise DarkroomError(f"steps_offset = {self.steps_offset}: give 0 or more")
        for key in ("eta", "guidance_rescale"):
            if not 0 <= (value := getattr(self, key)) <= 1:
                raise DarkroomError(f"{key} = {value}: give a number from 0 to 1")
        for key in ("snr", "tolerance"):
            if not 0 < (value := getattr(self, key)) < 1:
                raise DarkroomError(f"{key} = {value}: give a number between 0 and 1")
        for key, (owner, other) in SAMPLER_OPTIONS.items():
            if (value := getattr(self, key)) != other and self.sampler != owner:
                raise DarkroomError(
                    f"{key} = {value!r}: is {owner}'s alone; sampler = {self.sampler!r} takes {other!r}"
                )
        if self.sampler == "ode" and (self.spacing != "linspace" or self.omit_last or self.num_inference_steps < 2):
            raise DarkroomError(
                f"spacing = {self.spacing!r}, num_inference_steps = {self.num_inference_steps}: ode goes from the last "
                "time to the first; give linspace, with 2 steps or more"
            )
        if self.karras and self.sampler == "pndm":
            raise DarkroomError("karras = True: pndm takes steps evenly spaced in time; choose another sampler")

    def changed(self, **values: Any) -> "Sampling":
        """Another way of sampling; options that were the old sampler's alone do not outlive it.

        Raises:
            DarkroomError: see the class.
        """
        sampler = values.get("sampler", self.sampler)
        kept = {key: other for key, (owner, other) in SAMPLER_OPTIONS.items() if sampler != self.sampler == owner}
        return replace(self, **{**kept, **values})

    def levels(self, schedule: Process, prediction_type: PredictionType, strength: float = 1.0) -> list[Level]:
        """The levels to walk; of all of them, only the share `strength` in (0, 1], see `shortened`.

        Raises:
            DarkroomError: a number of steps out of range, or a sampler, prediction or spacing that does not go with the
                others or with the process.
        """
        check_prediction(schedule, prediction_type)
        if self.sampler in EPSILON_ONLY and prediction_type not in NOISE_PREDICTIONS:
            raise DarkroomError(
                f"sampler = {self.sampler!r}: extrapolates the network's own output, which must be epsilon; "
                f"this model's prediction_type is {prediction_type!r}: choose dpmpp_2m or another"
            )
        levels = level_grid(
            schedule,
            self.num_inference_steps,
            self.spacing,
            self.steps_offset,
            omit_last=self.omit_last,
            set_alpha_to_one=self.set_alpha_to_one,
            karras=self.karras,
        )
        return levels if strength == 1 else shortened(schedule, levels, strength)


def generate(
    denoiser: Denoiser,
    how: Sampling,
    start: Tensor,
    condition: Condition,
    null: Condition,
    noise: Noise,
    on_step: OnStep = ignore_step,
) -> Tensor:
    """Samples (N, C, H, W) of the model.

    Args:
        start: Gaussian noise (N, C, H, W), where the walk begins.
        condition, null: of N samples each.
        noise: step -> Gaussian noise shaped like start, for the samplers that add some.
    """
    levels = how.levels(denoiser.schedule, denoiser.prediction_type)
    x = begin(how, denoiser.schedule, levels, start)
    return walk(denoiser, how, x, levels, condition, null, noise, on_step)


def begin(how: Sampling, schedule: Process, levels: list[Level], start: Tensor) -> Tensor:
    """The x at levels[0] that stands for pure noise, of the unit noise `start`."""
    return (schedule.spread if how.initial_scale == "one" else levels[0].sigma) * start


def walk(
    denoiser: Denoiser,
    how: Sampling,
    x: Tensor,
    levels: list[Level],
    condition: Condition,
    null: Condition,
    noise: Noise,
    on_step: OnStep = ignore_step,
    amend: Callable[[Denoise], Denoise] = lambda denoise: denoise,
) -> Tensor:
    """Take x (N, C, H, W), a sample at levels[0], to levels[-1]; see `generate`.

    Args:
        amend: what to make of the guided denoiser, such as one that knows a part of the picture.
    """
    denoise = amend(guided(denoiser, null, how.guidance_scale, how.guidance_rescale))
    own = {key: getattr(how, key) for key in SAMPLER_OPTIONS}
    at_ratio = denoiser.schedule.at_ratio
    return sample(how.sampler, denoise, x, levels, condition, noise, on_step, at_ratio=at_ratio, **own)
