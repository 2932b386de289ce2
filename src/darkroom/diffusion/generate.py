"""From noise to samples: a grid of levels, a guided denoiser, a sampler."""

from dataclasses import dataclass

from torch import Tensor

from darkroom.core.choices import SamplerName, Spacing
from darkroom.diffusion.denoiser import Condition, Denoiser
from darkroom.diffusion.grids import level_grid
from darkroom.diffusion.guidance import guided
from darkroom.diffusion.samplers import Noise, OnStep, ignore_step, sample


@dataclass(frozen=True)
class Sampling:
    """How to sample: which rule, in how many steps, at which times, with how much guidance (1 = none)."""

    sampler: SamplerName
    num_inference_steps: int
    guidance_scale: float
    spacing: Spacing
    steps_offset: int = 0
    set_alpha_to_one: bool = True


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
    levels = level_grid(denoiser.schedule, how.num_inference_steps, how.spacing)
    denoise = guided(denoiser, null, how.guidance_scale)
    return sample(how.sampler, denoise, start, levels, condition, noise, on_step)
