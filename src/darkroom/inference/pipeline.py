"""A whole model: text to pictures, pictures to pictures, and parts of pictures anew."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack, overload

import torch
from PIL import Image
from torch import Tensor

from darkroom.config.base import Precision
from darkroom.core.artifact import model_hash
from darkroom.core.device import autocast, resolve_device
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import randn_each
from darkroom.core.tensors import sent, to_float, to_uint8
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.diffusion.denoiser import Denoiser
from darkroom.diffusion.generate import Sampling, generate
from darkroom.diffusion.process import Process, process_of
from darkroom.diffusion.samplers import OnStep, ignore_step
from darkroom.inference.defaults import INPAINT_STRENGTH, STRENGTH
from darkroom.inference.editing import Given, Picture, as_mask, as_pictures, check_strength, edited, kept, padded
from darkroom.inference.folder import PipelineInfo
from darkroom.inference.networks import Drawing, read_parts
from darkroom.inference.options import Options, Output, Request, Tally, answer, check_size, request, sampling, together
from darkroom.inference.prompts import ClassPrompts, NoPrompts, Prompts, TextPrompts
from darkroom.inference.words import Remarks, Words, check_prompts
from darkroom.nn.autoencoder import tiling as memory
from darkroom.nn.autoencoder.identity import Autoencoder
from darkroom.nn.denoiser.base import DenoisingNetwork
from darkroom.nn.text.clip import CLIPTextModel


@dataclass(frozen=True)
class Pipeline:
    """A trained model: tokenizer, text encoder, U-Net and autoencoder, with the process it was trained on.

    precision: of the U-Net and of decoding; text and given pictures are always encoded in fp32.
    """

    path: Path
    info: PipelineInfo
    unet: DenoisingNetwork
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
        parts = read_parts(Path(path), device, precision, *places)
        return cls(Path(path), *parts, device, precision or parts.info.precision)

    @cached_property
    def model_hash(self) -> str:
        """The content hash of the pipeline's folder, see core.artifact.model_hash."""
        return model_hash(self.path)

    @overload
    def text_to_image(
        self,
        prompt: str | Sequence[str],
        *,
        height: int | None = None,
        width: int | None = None,
        output: Literal["pil"] = "pil",
        **options: Unpack[Options],
    ) -> list[Image.Image]: ...

    @overload
    def text_to_image(
        self,
        prompt: str | Sequence[str],
        *,
        height: int | None = None,
        width: int | None = None,
        output: Literal["tensor"],
        **options: Unpack[Options],
    ) -> Tensor: ...

    @torch.no_grad()
    def text_to_image(
        self,
        prompt: str | Sequence[str],
        *,
        height: int | None = None,
        width: int | None = None,
        output: Output = "pil",
        **options: Unpack[Options],
    ) -> list[Image.Image] | Tensor:
        """One picture per prompt.

        Args:
            prompt: captions; names of classes for a class-conditional model; "" for an unconditional one.
            height, width: pixels, of any number, in place of the size the model was trained on.
            output: "pil" for a list of pictures, "tensor" for uint8 (N, C, H, W).
            options: see `Options`.

        Raises:
            DarkroomError: no prompt, one that is no text, as many seeds as there are not prompts, an unknown sampler,
                an unknown class, or a number of steps, a size or a scale out of range, or that the network cannot draw.
        """
        asked = self._request(prompt, options)
        size = (self.info.image_size if height is None else height, self.info.image_size if width is None else width)
        check_size(size, self.unet.fixed_side, self.vae.downscale)
        return answer(output, self._draw(asked, size))

    @overload
    def image_to_image(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Image.Image],
        *,
        strength: float = STRENGTH,
        output: Literal["pil"] = "pil",
        **options: Unpack[Options],
    ) -> list[Image.Image]: ...

    @overload
    def image_to_image(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Image.Image],
        *,
        strength: float = STRENGTH,
        output: Literal["tensor"],
        **options: Unpack[Options],
    ) -> Tensor: ...

    @torch.no_grad()
    def image_to_image(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Image.Image],
        *,
        strength: float = STRENGTH,
        output: Output = "pil",
        **options: Unpack[Options],
    ) -> list[Image.Image] | Tensor:
        """Given pictures, redrawn to show the prompts.

        Args:
            image: one picture for all prompts or one for each, of any one size; see `as_pictures`.
            strength: 0 gives the picture back (through the autoencoder), 1 draws a new one from noise; between, the
                picture is made noisy and the last part of the walk, strength * num_inference_steps steps, is drawn.
            prompt, output, options: see `text_to_image`.

        Raises:
            DarkroomError: as `text_to_image`; a strength outside [0, 1]; pictures that cannot be used.
        """
        check_strength(strength)
        pictures = as_pictures(image, self.info.channels)
        check_size(pictures.shape[2:], self.unet.fixed_side, self.vae.downscale)
        asked = self._request(prompt, options, pictures)
        given = Given(self.encode(pictures), strength)
        return answer(output, self._draw(asked, pictures.shape[2:], given))

    @overload
    def inpaint(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Image.Image],
        mask: Picture,
        *,
        strength: float = INPAINT_STRENGTH,
        output: Literal["pil"] = "pil",
        **options: Unpack[Options],
    ) -> list[Image.Image]: ...

    @overload
    def inpaint(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Image.Image],
        mask: Picture,
        *,
        strength: float = INPAINT_STRENGTH,
        output: Literal["tensor"],
        **options: Unpack[Options],
    ) -> Tensor: ...

    @torch.no_grad()
    def inpaint(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Image.Image],
        mask: Picture,
        *,
        strength: float = INPAINT_STRENGTH,
        output: Output = "pil",
        **options: Unpack[Options],
    ) -> list[Image.Image] | Tensor:
        """Given pictures, redrawn where the mask is white; every other pixel stays exactly as it is.

        Args:
            image, strength: see `image_to_image`. mask: one for all pictures, of their size; see `as_mask`.
            prompt: what the whole picture is to show, not only its new part.

        Raises:
            DarkroomError: as `image_to_image`; a mask of another size.
        """
        check_strength(strength)
        pictures = as_pictures(image, self.info.channels)
        check_size(pictures.shape[2:], self.unet.fixed_side, self.vae.downscale)
        size = (pictures.shape[2], pictures.shape[3])
        wanted = as_mask(mask, size)
        asked = self._request(prompt, options, pictures)
        keep = kept(wanted, self.multiple, self.vae.downscale).to(self.device)
        given = Given(self.encode(pictures), strength, keep)
        return answer(output, torch.where(wanted, self._draw(asked, size, given), pictures))

    def _request(self, prompt: str | Sequence[str], options: Options, pictures: Tensor | None = None) -> Request:
        """The request, checked against the model."""
        asked = request(prompt, options, self.info.sampling, 1 if pictures is None else len(pictures))
        asked.how.levels(self.schedule, self.info.prediction_type)
        if pictures is not None and len(pictures) not in (1, len(asked.prompts)):
            raise DarkroomError(
                f"image: {len(pictures)} given for {len(asked.prompts)} prompts; give one for all or one for each"
            )
        return asked

    def _draw(self, asked: Request, size: Sequence[int], given: Given | None = None) -> Tensor:
        """uint8 (N, C, *size), batch by batch; drawn larger where the networks need it, and cropped."""
        (height, width), prompts, parts = size, self.prompts(asked.prompts, asked.negatives), []
        self.remarks.warn([*asked.prompts, *(asked.negatives or ())], size)
        most = together(size, self.vae.downscale)
        for rows in replace(asked, batch_size=min(asked.batch_size, most)).batches:
            seeds = asked.seeds[rows]
            start, own = self.start(seeds, height, width), given
            if given is not None:
                own = replace(given, latents=given.latents.expand(len(asked.seeds), -1, -1, -1)[rows])
            latents = self.latents(prompts, rows, start, asked.how, seeds, asked.on_step, own, asked.tally)
            parts.append(self.decode(latents)[:, :, :height, :width])
        return torch.cat(parts)

    def sampling(self, **options: Unpack[Options]) -> Sampling:
        """The pipeline's own way of sampling, with what is given in its place; checked, see `text_to_image`."""
        how = sampling(options, self.info.sampling)
        how.levels(self.schedule, self.info.prediction_type)
        return how

    @cached_property
    def schedule(self) -> Process:
        """The noise process the U-Net was trained on."""
        return process_of(self.info.process)

    @property
    def multiple(self) -> int:
        """What the sides of a picture in pixels must be divisible by; others are padded, and cropped back."""
        return self.vae.downscale * self.unet.multiple

    def prompts(self, prompts: Sequence[str], negatives: Sequence[str] | None = None) -> Prompts:
        """The prompts, encoded once; negatives: as many, or None. For errors see `text_to_image`."""
        check_prompts(prompts, negatives or ())
        condition = self.info.condition
        if condition.kind == "class":
            return ClassPrompts(prompts, negatives, condition.classes, self.device)
        if self.text is None or condition.null is None:
            return NoPrompts([*prompts, *(negatives or ())])
        return TextPrompts(prompts, negatives, *self.text, condition.null, self.device)

    @cached_property
    def remarks(self) -> Remarks:
        """What is said of words and sizes that training never showed."""
        return Remarks(self.info.image_size, Words.read(self.path) if self.text else None)

    def start(self, seeds: Sequence[int], height: int | None = None, width: int | None = None) -> Tensor:
        """The noise (N, c, h, w) that pictures of these seeds begin with, for pictures of at least this size."""
        sides = (self.info.image_size if side is None else side for side in (height, width))
        h, w = (-(-side // self.multiple) * self.multiple // self.vae.downscale for side in sides)
        return sent(randn_each((self.unet.sizes.in_channels, h, w), list(seeds), "latents"), self.device)

    @cached_property
    def _drawing(self) -> Drawing:
        return Drawing(self.unet, self.vae, self.device, self.precision)

    @torch.no_grad()
    def latents(
        self,
        prompts: Prompts,
        rows: slice,
        start: Tensor,
        how: Sampling,
        seeds: Sequence[int],
        on_step: OnStep = ignore_step,
        given: Given | None = None,
        tally: Tally | None = None,
    ) -> Tensor:
        """Scaled latents (N, c, h, w) of the prompts in `rows`, from the noise `start` (N, c, h, w), as one batch.

        given: what there is besides the noise; None: nothing. tally: counts the evaluations of the network.
        """
        tally = tally or Tally()

        def noise(step: int) -> Tensor:
            return sent(randn_each(tuple(start.shape[1:]), list(seeds), "step", step), self.device)

        with autocast(self.device, self.precision):
            condition, null = prompts.conditions(self.unet, rows)
        denoiser = Denoiser(self._drawing.network(tally), self.schedule, self.info.prediction_type)
        if given is None:
            return generate(denoiser, how, start, condition, null, noise, on_step)
        return edited(denoiser, how, given, start, condition, null, noise, on_step)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (N, c, h, w) -> pictures, uint8 (N, C, H, W) on the CPU; large ones with little memory."""
        with autocast(self.device, self.precision):
            pictures = memory.decode(self._drawing.decoder, latents.float() / self.info.scaling_factor)
        return to_uint8(pictures).cpu()

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures uint8 (N, C, H, W) of any size -> the mean of their scaled latents (N, c, h, w)."""
        images = padded(to_float(pictures), self.multiple).to(self.device)
        return memory.encode(self.vae, images) * self.info.scaling_factor

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Pictures in [-1, 1] (N, C, H, W) through the autoencoder and back, uint8, from the posterior's mean."""
        return to_uint8(self.vae.decode(self.vae.encode(images.to(self.device)).mean)).cpu()
