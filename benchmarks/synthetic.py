"""A recipe's networks and data without its data set: right in shape and size, random in content."""

from pathlib import Path

import torch

from darkroom.config.autoencoder import IdentityVAE, PretrainedVAE
from darkroom.config.params import Params
from darkroom.config.text_encoder import PretrainedTextEncoder, TrainedTextEncoder
from darkroom.core.rng import generator, seeded
from darkroom.data.conditioning import Conditioning, ConditioningInfo
from darkroom.data.latents import Latents
from darkroom.nn.denoiser.base import build
from darkroom.training.unet import spec_of

PROJECT = Path(__file__).parents[1]
CLASSES = 10  # of recipes for classes
CLIP = (77, 768)  # of text states, where the encoder is imported
SD_CHANNELS, SD_DOWNSCALE = 4, 8  # of latents, where the autoencoder is
HELD_OUT = 64


def condition_of(params: Params) -> ConditioningInfo:
    """What the recipe's denoiser is told."""
    text = params.setup_text_encoder
    if isinstance(text, TrainedTextEncoder):
        return ConditioningInfo("text", None, text.text.max_length, text.text.hidden_size, [])
    if isinstance(text, PretrainedTextEncoder):
        return ConditioningInfo("text", None, *CLIP, [])
    return ConditioningInfo(text.kind, None, 0, 0, [str(i) for i in range(CLASSES)] if text.kind == "class" else [])


def latent_of(params: Params) -> tuple[int, ...]:
    """(c, h, w) of what the recipe's denoiser sees: latents, or pictures where there is no autoencoder."""
    data, vae = params.prepare_data, params.train_vae
    if isinstance(vae, IdentityVAE):
        return data.channels, data.image_size, data.image_size
    if isinstance(vae, PretrainedVAE):
        return SD_CHANNELS, data.image_size // SD_DOWNSCALE, data.image_size // SD_DOWNSCALE
    side = data.image_size // vae.autoencoder.downscale
    return vae.autoencoder.latent_channels, side, side


def network(params: Params) -> torch.nn.Module:
    """The recipe's U-Net, as its stage builds it for pictures or latents of the recipe's size."""
    with seeded(params.train_unet.seed, "unet"):
        spec = spec_of(params.train_unet, latent_of(params), condition_of(params))
        made: torch.nn.Module = build(spec.network, spec.sizes).stored()
    return made


def latents(samples: int, shape: tuple[int, ...]) -> Latents:
    """Moments of about unit variance."""
    mean = torch.randn((samples, *shape), generator=generator(0, "synthetic latents")).half()
    return Latents(mean, torch.full_like(mean, -4.0), 1.0)


def conditioning(info: ConditioningInfo, samples: int, captions: int) -> Conditioning:
    """Text states of so many captions, each sample's one of them; `info` is of kind text."""
    drawn = generator(0, "synthetic captions")
    states = torch.randn((captions, info.max_length, info.dim), generator=drawn).half()
    index = {
        split: torch.randint(captions, (n,), generator=drawn)
        for split, n in (("train", samples), ("validation", HELD_OUT))
    }
    return Conditioning(info, index, states, states[0].float())
