"""Text to pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, overload

import torch
from PIL import Image
from torch import Tensor

from darkroom.core.artifact import content_hash
from darkroom.core.choices import Precision, SamplerName
from darkroom.core.device import autocast, resolve_device
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import randn_each
from darkroom.core.tensors import to_pil, to_uint8
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.diffusion.denoiser import Condition, Denoiser
from darkroom.diffusion.generate import Sampling, generate
from darkroom.diffusion.grids import level_grid
from darkroom.diffusion.samplers import SAMPLERS, OnStep, ignore_step
from darkroom.diffusion.schedule import DiscreteVP
from darkroom.inference.folder import PipelineInfo
from darkroom.inference.networks import read_parts
from darkroom.inference.prompts import ClassPrompts, NoPrompts, Prompts, TextPrompts
from darkroom.nn.identity import Autoencoder
from darkroom.nn.text import CLIPTextModel
from darkroom.nn.unet import UNet2DConditionModel

BATCH_SIZE = 64


@dataclass(frozen=True)
class Pipeline:
    """A trained model: tokenizer, text encoder, U-Net and autoencoder, with the process it was trained on.

    precision: of the U-Net; text and pictures are always encoded and decoded in fp32.
    """

    path: Path
    info: PipelineInfo
    unet: UNet2DConditionModel
    vae: Autoencoder
    text: tuple[CLIPTokenizer, CLIPTextModel] | None
    device: torch.device
    precision: Precision

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str,
        *,
        device: torch.device | str = "auto",
        precision: Precision | None = None,
        tokenizer: Path | str | None = None,
        config: Path | str | None = None,
    ) -> "Pipeline":
        """Load the model at `path`: a pipeline made here, a diffusers folder, or a Stable Diffusion 1.x single file.

        Args:
            path: the folder, or a .safetensors or .ckpt file, no code of which is ever run.
            device: "auto" takes CUDA, then MPS, then the CPU.
            precision: "fp32" or "bf16" in place of the pipeline's own; other tools' models are drawn in fp32.
            tokenizer: for a single file, the folder of vocab.json and merges.txt, or bpe_simple_vocab_16e6.txt.gz; by
                default what lies beside the file.
            config: for a single file, a diffusers folder whose configurations and scheduler hold for it; by default
                Stable Diffusion 1.x's.

        Raises:
            DarkroomError: nothing is there, it is another kind of model (and which), or it is incomplete.
        """
        device = resolve_device(device) if isinstance(device, str) else device
        places = (None if place is None else Path(place) for place in (tokenizer, config))
        parts = read_parts(Path(path), device, *places)
        return cls(
            path=Path(path),
            info=parts.info,
            unet=parts.unet,
            vae=parts.vae,
            text=parts.text,
            device=device,
            precision=precision or parts.info.precision,
        )

    @cached_property
    def model_hash(self) -> str:
        """The content hash of the pipeline's folder."""
        return content_hash(self.path)

    @overload
    def text_to_image(
        self,
        prompt: str | Sequence[str],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: SamplerName | None = None,
        seeds: Sequence[int] | None = None,
        output: Literal["pil"] = "pil",
        on_step: OnStep = ignore_step,
        batch_size: int = BATCH_SIZE,
    ) -> list[Image.Image]: ...

    @overload
    def text_to_image(
        self,
        prompt: str | Sequence[str],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: SamplerName | None = None,
        seeds: Sequence[int] | None = None,
        output: Literal["tensor"],
        on_step: OnStep = ignore_step,
        batch_size: int = BATCH_SIZE,
    ) -> Tensor: ...

    @torch.no_grad()
    def text_to_image(
        self,
        prompt: str | Sequence[str],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: SamplerName | None = None,
        seeds: Sequence[int] | None = None,
        output: Literal["pil", "tensor"] = "pil",
        on_step: OnStep = ignore_step,
        batch_size: int = BATCH_SIZE,
    ) -> list[Image.Image] | Tensor:
        """One picture per prompt.

        Args:
            prompt: captions; names of classes for a class-conditional model; "" for an unconditional one.
            num_inference_steps, guidance_scale, sampler: in place of the pipeline's own; guidance 1 is the conditional
                model itself, at half the work.
            seeds: one per picture, by default 0, 1, 2, …; a picture depends on its own prompt and seed alone. A single
                prompt is drawn once for each.
            output: "pil" for a list of pictures, "tensor" for uint8 (N, C, H, W).
            on_step: called after each step of each batch with (step, latents, the x0 they were based on), scaled.
            batch_size: pictures drawn at once.

        Raises:
            DarkroomError: no prompt, as many seeds as there are not prompts, an unknown sampler, an unknown class,
                or a number of steps or a scale out of range.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        seeds = list(range(len(prompts))) if seeds is None else list(seeds)
        how = self.sampling(num_inference_steps, guidance_scale, sampler)
        if not prompts:
            raise DarkroomError("prompt: none given; give at least one text")
        if isinstance(prompt, str):
            prompts = prompts * len(seeds)
        if len(seeds) != len(prompts):
            raise DarkroomError(f"seeds: {len(seeds)} given for {len(prompts)} prompts; give one for each")
        if batch_size < 1:
            raise DarkroomError(f"batch_size = {batch_size}: give 1 or more")
        encoded, parts = self.prompts(prompts), []
        for first in range(0, len(prompts), batch_size):
            rows = slice(first, first + batch_size)
            parts.append(self.decode(self.latents(encoded, rows, self.start(seeds[rows]), how, seeds[rows], on_step)))
        pictures = torch.cat(parts)
        return pictures if output == "tensor" else [to_pil(picture) for picture in pictures]

    def sampling(
        self,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: SamplerName | None = None,
    ) -> Sampling:
        """The pipeline's own way of sampling, with what is given in its place; checked, see `text_to_image`."""
        how = self.info.sampling
        if num_inference_steps is not None:
            how = replace(how, num_inference_steps=num_inference_steps)
        if guidance_scale is not None:
            how = replace(how, guidance_scale=guidance_scale)
        if sampler is not None:
            how = replace(how, sampler=sampler)
        if how.sampler not in SAMPLERS:
            raise DarkroomError(f"sampler = {how.sampler!r}: unknown; choose from {', '.join(SAMPLERS)}")
        if not (math.isfinite(how.guidance_scale) and how.guidance_scale >= 0):
            raise DarkroomError(f"guidance_scale = {how.guidance_scale}: give 0 or more; 1 is no guidance")
        level_grid(self.schedule, how.num_inference_steps, how.spacing)
        return how

    @cached_property
    def schedule(self) -> DiscreteVP:
        """The noise schedule the U-Net was trained on."""
        return DiscreteVP(**self.info.process)

    def prompts(self, prompts: Sequence[str]) -> Prompts:
        """The prompts, encoded once. For errors see `text_to_image`."""
        condition = self.info.condition
        if condition.kind == "class":
            return ClassPrompts(prompts, condition.classes, self.device)
        if self.text is None or condition.null is None:
            return NoPrompts(prompts)
        return TextPrompts(prompts, *self.text, condition.null, self.device)

    def start(self, seeds: Sequence[int]) -> Tensor:
        """The noise (N, c, h, w) that pictures of these seeds begin with."""
        c = self.unet.config
        side = self.info.image_size // self.vae.downscale
        return randn_each((c.in_channels, side, side), list(seeds), "latents").to(self.device)

    @torch.no_grad()
    def latents(
        self,
        prompts: Prompts,
        rows: slice,
        start: Tensor,
        how: Sampling,
        seeds: Sequence[int],
        on_step: OnStep = ignore_step,
    ) -> Tensor:
        """Scaled latents (N, c, h, w) of the prompts in `rows`, from the noise `start` (N, c, h, w), as one batch."""

        def network(x: Tensor, t: Tensor, c: Condition) -> Tensor:
            with autocast(self.device, self.precision):
                output: Tensor = self.unet(x, t, c.context, c.class_ids)
            return output

        def noise(step: int) -> Tensor:
            return randn_each(tuple(start.shape[1:]), list(seeds), "step", step).to(self.device)

        with autocast(self.device, self.precision):
            condition, null = prompts.conditions(self.unet, rows)
        denoiser = Denoiser(network, self.schedule, self.info.prediction_type)
        return generate(denoiser, how, start, condition, null, noise, on_step)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (N, c, h, w) -> pictures, uint8 (N, C, H, W) on the CPU."""
        return to_uint8(self.vae.decode(latents.float() / self.info.scaling_factor)).cpu()

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Pictures in [-1, 1] (N, C, H, W) through the autoencoder and back, uint8, from the posterior's mean."""
        return to_uint8(self.vae.decode(self.vae.encode(images.to(self.device)).mean)).cpu()
