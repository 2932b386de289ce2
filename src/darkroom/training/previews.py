"""Samples during training, seen through the latent -> RGB map: the same noise and captions every time."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image

from darkroom.core.device import autocast
from darkroom.core.rng import randn_each
from darkroom.core.sheet import STRIP_COLUMNS, STRIP_ROWS, Moment, strip
from darkroom.core.tensors import contrast, image_grid, to_pil, to_uint8
from darkroom.core.trace import Trace, evenly
from darkroom.data.latents import PreviewMap
from darkroom.diffusion.denoiser import Condition, Denoiser
from darkroom.diffusion.generate import Sampling, begin, walk
from darkroom.diffusion.schedule import Level
from darkroom.nn.denoising import DenoisingNetwork
from darkroom.training.unet import UNetTask, condition_for

SIDE = 96  # least pixels per preview


class Preview(NamedTuple):
    """grid: the samples. strip: how the first few of them came about."""

    grid: Image.Image
    strip: Image.Image


def preview(unet: DenoisingNetwork, task: UNetTask, to_rgb: PreviewMap, how: Sampling, n: int) -> Preview:
    """n samples for the conditions of the first n held-out pictures, all in one range, [-1, 1]."""
    conditioning, device = task.conditioning, task.setting.device
    shape = task.train.shape
    n = min(n, len(task.held_out))
    condition = condition_for(unet, conditioning.given("validation", torch.arange(n)), device)
    null = condition_for(unet, conditioning.null_of(n), device)
    objective = task.objective

    def network(x: torch.Tensor, t: torch.Tensor, c: Condition) -> torch.Tensor:
        with autocast(device, task.setting.precision):
            output: torch.Tensor = unet(x, t, c.context, c.class_ids)
        return output

    denoiser = Denoiser(network, objective.schedule, objective.prediction_type)
    seeds = list(range(n))
    start = randn_each(shape, seeds, "preview").to(device)
    levels = how.levels(objective.schedule, objective.prediction_type)
    trace = Trace(evenly(len(levels), STRIP_COLUMNS), STRIP_ROWS)
    x = begin(how, objective.schedule, levels, start)
    trace.begin(x)

    def noise(step: int) -> torch.Tensor:
        return randn_each(shape, seeds, "preview step", step).to(device)

    latents = walk(denoiser, how, x, levels, condition, null, noise, trace.watch)
    images = to_uint8(to_rgb(latents.cpu()))
    scale = max(1, SIDE // images.shape[-1])
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return Preview(to_pil(image_grid(images, columns=max(1, round(n**0.5)))), _strip(trace, levels, to_rgb))


def _strip(trace: Trace, levels: Sequence[Level], to_rgb: PreviewMap) -> Image.Image:
    moments, rows = [], 0
    for state, x, x0 in trace:
        alpha, sigma = levels[state]
        seen = contrast(float(alpha), float(sigma)) * to_rgb(x)
        so_far, expected = ([to_pil(picture) for picture in to_uint8(shown)] for shown in (seen, to_rgb(x0)))
        moments.append(Moment(f"step {state} of {len(levels) - 1}", so_far, expected))
        rows = len(so_far)
    return strip([f"held-out condition {row + 1}" for row in range(rows)], moments)
