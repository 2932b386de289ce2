"""A trained model: text to image, image to image, inpainting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import torch
from PIL import Image
from torch import Tensor

from darkroom.config.base import Precision
from darkroom.config.sampling import Sampling
from darkroom.core.artifact import model_hash
from darkroom.core.device import autocast, resolve_device
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import randn_each
from darkroom.core.tensors import sent, to_float, to_uint8
from darkroom.core.text import plural
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.diffusion.denoiser import Denoiser
from darkroom.diffusion.generate import generate, initial_noise, sampling_levels
from darkroom.diffusion.process import Process, process_of
from darkroom.inference.defaults import INPAINT_STRENGTH, STRENGTH
from darkroom.inference.editing import Edit, Picture, as_mask, as_pictures, check_strength, kept, padded
from darkroom.inference.folder import PipelineInfo
from darkroom.inference.networks import Drawing, read_networks
from darkroom.inference.options import Options, Request, check_size, chosen_sampling, most_at_once, request
from darkroom.inference.output import PipelineOutput
from darkroom.inference.prompts import ClassPrompts, NoPrompts, Prompts, TextPrompts
from darkroom.inference.text_encoder import CLIPEncoder
from darkroom.inference.words import Remarks, Words, check_prompts
from darkroom.interop.lora import Adapter, LoRA
from darkroom.nn.autoencoder import tiling as memory
from darkroom.nn.autoencoder.identity import Autoencoder
from darkroom.nn.denoiser.base import DenoisingNetwork
from darkroom.nn.text.clip import CLIPTextModel

if TYPE_CHECKING:
    from darkroom.view.film import Film


@dataclass(frozen=True)
class Pipeline:
    """A trained model: tokenizer, text encoder, U-Net and autoencoder, with the process it was trained on.

    precision: of the U-Net and of decoding; text and given pictures are always encoded in fp32.
    adapters: that are part of its networks.
    """

    path: Path
    info: PipelineInfo
    unet: DenoisingNetwork
    vae: Autoencoder
    text: tuple[CLIPTokenizer, CLIPTextModel] | None
    device: torch.device
    precision: Precision
    adapters: tuple[Adapter, ...] = ()

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str,
        *,
        device: torch.device | str = "auto",
        precision: Precision | None = None,
        lora: Sequence[LoRA] = (),
        tokenizer: Path | str | None = None,
        config: Path | str | None = None,
    ) -> "Pipeline":
        """Load the model at `path`: a pipeline made here, a diffusers folder, or a Stable Diffusion 1.x single file.

        Args:
            path: the folder, or a .safetensors or .ckpt file, no code of which is ever run.
            device: "auto" takes CUDA, then MPS, then the CPU.
            precision: "fp32" or "bf16" in place of the pipeline's own; other tools' models are drawn in fp32.
            lora: adapters, each of which acts with its own strength.
            tokenizer: for a single file, the folder of vocab.json and merges.txt, or bpe_simple_vocab_16e6.txt.gz; by
                default what lies beside the file.
            config: for a single file, a diffusers folder whose configurations and scheduler hold for it; by default
                Stable Diffusion 1.x's.

        Raises:
            DarkroomError: nothing is there, it is another kind of model (and which), or it is incomplete.
        """
        device = resolve_device(device) if isinstance(device, str) else device
        files = (None if file is None else Path(file) for file in (tokenizer, config))
        info, unet, vae, text, adapters = read_networks(Path(path), device, precision, lora, *files)
        return cls(Path(path), info, unet, vae, text, device, precision or info.precision, adapters)

    @cached_property
    def model_hash(self) -> str:
        """The content hash of the pipeline's folder, see core.artifact.model_hash."""
        return model_hash(self.path)

    @torch.no_grad()
    def text_to_image(
        self,
        prompt: str | Sequence[str],
        *,
        height: int | None = None,
        width: int | None = None,
        **options: Unpack[Options],
    ) -> PipelineOutput:
        """One picture per prompt.

        Args:
            prompt: captions; names of classes for a class-conditional model; "" for an unconditional one.
            height, width: pixels, of any number, in place of the size the model was trained on.
            options: see `Options`.

        Raises:
            DarkroomError: a prompt that is not a text or not a class of the model, numbers of prompts and seeds that do
                not match, an unknown sampler, or a number of steps, a size or a scale out of range.
        """
        request = self.request(prompt, options)
        size = (self.info.image_size if height is None else height, self.info.image_size if width is None else width)
        check_size(size, self.unet.fixed_side, self.vae.downscale)
        return self._draw(request, size)

    def image_to_image(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Image.Image],
        *,
        strength: float = STRENGTH,
        **options: Unpack[Options],
    ) -> PipelineOutput:
        """Pictures, redrawn to show the prompts.

        Args:
            image: one picture for all prompts or one for each, of any one size; see `as_pictures`.
            strength: 0 gives the picture back (through the autoencoder), 1 draws a new one from noise; between, the
                picture is made noisy and the last strength * num_inference_steps sampling steps are taken.
            prompt, options: see `text_to_image`.

        Raises:
            DarkroomError: as `text_to_image`; a strength outside [0, 1]; pictures that cannot be used.
        """
        return self._edit(prompt, image, None, strength, options)

    def inpaint(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Image.Image],
        mask: Picture,
        *,
        strength: float = INPAINT_STRENGTH,
        **options: Unpack[Options],
    ) -> PipelineOutput:
        """Pictures, redrawn where the mask is white; every other pixel stays exactly as it is.

        Args:
            image, strength: see `image_to_image`. mask: one for all pictures, of their size; see `as_mask`.
            prompt: describes the entire picture, not only its new part.

        Raises:
            DarkroomError: as `image_to_image`; a mask of another size.
        """
        return self._edit(prompt, image, mask, strength, options)

    @torch.no_grad()
    def _edit(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Image.Image],
        mask: Picture | None,
        strength: float,
        options: Options,
    ) -> PipelineOutput:
        check_strength(strength)
        pictures = as_pictures(image, self.info.channels)
        size = (pictures.shape[2], pictures.shape[3])
        check_size(size, self.unet.fixed_side, self.vae.downscale)
        wanted = None if mask is None else as_mask(mask, size)
        request = self.request(prompt, options, pictures)
        keep = None if wanted is None else kept(wanted, self.multiple, self.vae.downscale).to(self.device)
        drawn = self._draw(request, size, Edit(self.encode(pictures), strength, keep))
        return drawn if wanted is None else replace(drawn, tensor=torch.where(wanted, drawn.tensor, pictures))

    def request(self, prompt: str | Sequence[str], options: Options, pictures: Tensor | None = None) -> Request:
        """A request, checked against the model; pictures: (M, C, H, W) to be redrawn."""
        found = request(prompt, options, self.info.sampling, 1 if pictures is None else len(pictures))
        sampling_levels(found.sampling, self.schedule, self.info.prediction_type)
        if pictures is not None and len(pictures) not in (1, len(found.prompts)):
            prompts = plural(len(found.prompts), "prompt")
            raise DarkroomError(f"image: {len(pictures)} given for {prompts}; give one for all or one for each")
        return found

    def _draw(self, request: Request, size: tuple[int, int], edit: Edit | None = None) -> PipelineOutput:
        """Pictures of `size` (height, width), batch by batch; drawn larger where the networks need it, and cropped."""
        evaluations = 0

        def counted() -> None:
            nonlocal evaluations
            evaluations += 1
            request.on_evaluation()

        prompts = self.prompts(request.prompts, request.negatives)
        self.remarks.warn([*request.prompts, *(request.negatives or ())], size)
        batch_size = min(request.batch_size, most_at_once(size, self.vae.downscale))
        counting = replace(request, batch_size=batch_size, on_evaluation=counted)
        pictures = [self.drawn(counting, prompts, rows, size, edit) for rows in counting.batches]
        return PipelineOutput(torch.cat(pictures), request.prompts, request.seeds, evaluations)

    def drawn(
        self, request: Request, prompts: Prompts, rows: slice, size: tuple[int, int], edit: Edit | None = None
    ) -> Tensor:
        """The pictures in `rows`, drawn as one batch: uint8 (n, C, *size); for arguments see `latents`."""
        return self.decode(self.latents(request, prompts, rows, size, edit))[:, :, : size[0], : size[1]]

    def sampling(self, **options: Unpack[Options]) -> Sampling:
        """The pipeline's sampling with these options in place of its own; checked, see `text_to_image`."""
        sampling = chosen_sampling(options, self.info.sampling)
        sampling_levels(sampling, self.schedule, self.info.prediction_type)
        return sampling

    @cached_property
    def schedule(self) -> Process:
        """The noise process the U-Net was trained on."""
        return process_of(self.info.process)

    @property
    def multiple(self) -> int:
        """Sides of pictures must be multiples of this many pixels; others are padded, and cropped back."""
        return self.vae.downscale * self.unet.multiple

    def prompts(self, prompts: Sequence[str], negatives: Sequence[str] | None = None) -> Prompts:
        """The prompts, encoded once; negatives: as many, or None. For errors see `text_to_image`."""
        check_prompts(prompts, negatives or ())
        condition = self.info.condition
        if condition.of_classes:
            return ClassPrompts(prompts, negatives, condition.classes, self.device)
        if self.text is None or condition.null is None:
            return NoPrompts([*prompts, *(negatives or ())])
        return TextPrompts(prompts, negatives, CLIPEncoder(*self.text, self.device), condition.null)

    @cached_property
    def remarks(self) -> Remarks:
        """Messages on words and sizes that training never showed."""
        knows = self.text is not None and not self.adapters  # an adapter may have been taught other words
        return Remarks(self.info.image_size, Words.read(self.path) if knows else None, self.info.sizes)

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
        request: Request,
        prompts: Prompts,
        rows: slice,
        size: tuple[int, int] | None = None,
        edit: Edit | None = None,
    ) -> Tensor:
        """Scaled latents (N, c, h, w) of the pictures in `rows`, drawn as one batch.

        Args:
            prompts: of the request.
            size: (height, width) in pixels; None: as in training.
            edit: of all pictures of the request, or one for all; None: nothing but noise to start from.
        """
        seeds = request.seeds[rows]
        start = self.start(seeds, *(size or ()))

        def noise(number: int) -> Tensor:
            return sent(randn_each(tuple(start.shape[1:]), seeds, "step", number), self.device)

        network = self._drawing.network(request.on_evaluation)
        denoiser = Denoiser(network, self.schedule, self.info.prediction_type)
        conditions = prompts.conditions(rows)
        if edit is None:
            return generate(denoiser, request.sampling, start, conditions, noise, request.on_step)
        edit = replace(edit, latents=edit.latents.expand(len(request.seeds), -1, -1, -1)[rows])
        return edit.generate(denoiser, request.sampling, start, conditions, noise, request.on_step)

    def film(
        self, captions: Sequence[str], sampling: Sampling, strength: float = 1.0, seeds: Sequence[int] | None = None
    ) -> "Film":
        """A film of the first len(captions) pictures of a batch, whose `watch` is to be its `on_step`.

        Args:
            strength: of the edit; 1 where nothing is edited.
            seeds: of these pictures, to show their initial noise too.
        """
        from darkroom.view.film import Film  # and with it matplotlib

        levels = sampling_levels(sampling, self.schedule, self.info.prediction_type, strength)
        initial = None if seeds is None else initial_noise(sampling, self.schedule, levels, self.start(seeds))
        return Film(captions, levels, self.decode, self.vae.centre * self.info.scaling_factor, initial)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (N, c, h, w) -> pictures, uint8 (N, C, H, W) on the CPU; large ones with little memory."""
        with autocast(self.device, self.precision):
            scaled = latents.to(self.device).float() / self.info.scaling_factor
            pictures = memory.decode(self._drawing.decoder, scaled)
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
