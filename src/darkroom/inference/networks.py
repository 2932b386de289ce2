"""The networks of a pipeline: of a folder of our own, of a diffusers folder, or of a Stable Diffusion 1.x file."""

from pathlib import Path
from typing import NamedTuple

import torch

from darkroom.core.artifact import CONFIG, COPY, PIPELINE, read_json
from darkroom.core.choices import Precision
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import DIFFUSERS_WEIGHTS, load_weights
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.inference.folder import DIFFUSERS_KIND, PipelineInfo
from darkroom.interop.contents import INDEX
from darkroom.interop.diffusers import TEXT_ENCODER, TOKENIZER, UNET, VAE, read_text_encoder, read_unet, read_vae
from darkroom.interop.model import build, build_vae
from darkroom.interop.source import read_model
from darkroom.nn.denoising import DenoisingNetwork
from darkroom.nn.frozen import FrozenUNet
from darkroom.nn.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.kinds import KIND, from_json, kind_of
from darkroom.nn.kinds import build as build_denoiser
from darkroom.nn.text import CLIPTextModel
from darkroom.nn.unet import UNet2DConditionModel


class Parts(NamedTuple):
    """A pipeline's description and its frozen networks; text: None for a model without prompts."""

    info: PipelineInfo
    unet: DenoisingNetwork
    vae: Autoencoder
    text: tuple[CLIPTokenizer, CLIPTextModel] | None


def read_parts(
    path: Path, device: torch.device, precision: Precision | None, tokenizer: Path | None, config: Path | None
) -> Parts:
    """Read what lies at `path`, strictly.

    Args:
        precision: of the U-Net, in place of the description's.
        tokenizer, config: see interop.source.read_model; for models of other tools.

    Raises:
        DarkroomError: nothing is there, it is no model, or not a whole one.
    """
    if path.is_file() or ((path / INDEX).is_file() and not (path / PIPELINE).is_file()):
        model = read_model(path, tokenizer, config)
        info = PipelineInfo.of(model)
        return Parts(
            info,
            _for_drawing(build(model.unet, model.unet_weights, device, precision or info.precision), device),
            build_vae(model.vae, model.vae_weights, device),
            (model.tokenizer, build(model.text, model.text_weights, device)),
        )
    info = PipelineInfo.read(path)
    vae: Autoencoder
    if info.identity_range is not None:
        vae = IdentityAutoencoder(*info.identity_range)
    else:
        vae, _ = read_vae(path / VAE, device)
    text = None
    if info.condition.kind == "text":
        words = CLIPTokenizer.read(path / TOKENIZER)
        text = words, read_text_encoder(path / TEXT_ENCODER, words, device)
    return Parts(info, _read_denoiser(path / UNET, info, device, precision or info.precision), vae, text)


def _for_drawing(unet: UNet2DConditionModel, device: torch.device) -> DenoisingNetwork:
    return FrozenUNet(unet) if device.type == "cpu" else unet.stored()


def _read_denoiser(folder: Path, info: PipelineInfo, device: torch.device, precision: Precision) -> DenoisingNetwork:
    if info.network == DIFFUSERS_KIND:
        return _for_drawing(read_unet(folder, device, precision), device)
    config = from_json(read_json(folder / CONFIG, COPY), folder / CONFIG)
    if kind_of(config) != info.network:
        raise DarkroomError(f"{folder / CONFIG}: {KIND} = {kind_of(config)!r}, but {PIPELINE} says {info.network!r}")
    return load_weights(build_denoiser(config), folder / DIFFUSERS_WEIGHTS, device, remedy=COPY).stored()
