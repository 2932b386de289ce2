"""The assembled folder is a diffusers folder that draws our pictures."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from darkroom.diffusion.generate import Sampling
from darkroom.inference.pipeline import Pipeline

LINEAR = {"schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
PROMPTS = ["a small red circle", "a large blue square", "a small red circle, and much that is said beyond the end"]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"prediction_type": "epsilon", "process": LINEAR, "channels": 1},
        {"prediction_type": "sample", "process": {**LINEAR, "schedule": "linear"}},
    ],
    ids=["cosine v", "scaled linear eps, grey", "linear x0"],
)
def test_diffusers_draws_the_same_pictures(
    how: dict[str, Any], make: Callable[..., Pipeline], diffusers: Any, transformers: Any
) -> None:
    ours = make(**how)
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(ours.path, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    seeds = [0, 1, 2]
    start = ours.start(seeds)
    sampling = Sampling("ddim", 10, 5.0, "trailing")
    latents = ours.latents(ours.prompts(PROMPTS), slice(0, 3), start, sampling, seeds)
    call = {"num_inference_steps": 10, "guidance_scale": 5.0, "latents": start.clone(), "height": 16, "width": 16}
    expected = theirs(PROMPTS, output_type="latent", **call).images
    error = float((latents - expected).square().mean())
    peak = float(expected.max() - expected.min())
    assert 10 * math.log10(peak**2 / error) >= 100
    pictures = theirs(PROMPTS, output_type="pt", **call).images
    ours_drawn = ours.decode(latents).float() / 255
    assert ours_drawn.shape == pictures.shape
    assert float((ours_drawn - pictures).abs().max()) <= 1.01 / 255
    assert pictures.std() > 0.05
