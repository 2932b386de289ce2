"""Samples during training, seen through the latent -> RGB map: the same noise and captions every time."""

import torch
from PIL import Image

from darkroom.core.device import autocast
from darkroom.core.rng import randn_each
from darkroom.core.tensors import image_grid, to_pil, to_uint8
from darkroom.data.latents import PreviewMap
from darkroom.diffusion.denoiser import Condition, Denoiser
from darkroom.diffusion.generate import Sampling, generate
from darkroom.nn.denoising import DenoisingNetwork
from darkroom.training.unet import UNetTask, condition_for

SIDE = 96  # least pixels per preview


def preview(unet: DenoisingNetwork, task: UNetTask, to_rgb: PreviewMap, how: Sampling, n: int) -> Image.Image:
    """A grid of n samples for the conditions of the first n held-out pictures."""
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
    latents = generate(
        denoiser, how, start, condition, null, lambda step: randn_each(shape, seeds, "preview step", step).to(device)
    )
    images = to_uint8(to_rgb(latents.cpu()))
    scale = max(1, SIDE // images.shape[-1])
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return to_pil(image_grid(images, columns=max(1, round(n**0.5))))
