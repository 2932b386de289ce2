"""The networks of a pipeline's folder, rebuilt from the configurations that diffusers and transformers write."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from darkroom.core.artifact import CONFIG, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import DIFFUSERS_WEIGHTS, WEIGHTS, Network, load_weights
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.inference.folder import TEXT_ENCODER, TOKENIZER, UNET, VAE
from darkroom.nn.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.text import CLIPTextConfig, CLIPTextModel
from darkroom.nn.unet import UNet2DConditionModel, UNetConfig
from darkroom.nn.vae import AutoencoderKL, AutoencoderKLConfig


def read_unet(folder: Path, device: torch.device) -> UNet2DConditionModel:
    """unet/ as a frozen network."""
    known = _known(folder / UNET, UNetConfig)
    if isinstance(known.get("cross_attention_dim"), list):  # how diffusers says: each level attends to itself
        known["cross_attention_dim"] = None
    return _load(UNet2DConditionModel(UNetConfig(**known)), folder / UNET / DIFFUSERS_WEIGHTS, device)


def read_autoencoder(folder: Path, kind: str, device: torch.device) -> Autoencoder:
    """vae/ as a frozen network; kind "identity" has no folder."""
    if kind == "identity":
        return IdentityAutoencoder()
    network = AutoencoderKL(AutoencoderKLConfig(**_known(folder / VAE, AutoencoderKLConfig)))
    return _load(network, folder / VAE / DIFFUSERS_WEIGHTS, device)


def read_text_encoder(folder: Path, device: torch.device) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """tokenizer/ and text_encoder/, frozen."""
    network = CLIPTextModel(CLIPTextConfig(**_known(folder / TEXT_ENCODER, CLIPTextConfig)))
    return CLIPTokenizer.read(folder / TOKENIZER), load_weights(network, folder / TEXT_ENCODER / WEIGHTS, device)


def _load(network: Network, file: Path, device: torch.device) -> Network:
    """Convolutions run faster with channels last."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return load_weights(network, file, device)


def _known(folder: Path, config: Any) -> dict[str, Any]:
    """The keys of config.json that the config dataclass has."""
    values = read_json(folder / CONFIG)
    names = [field.name for field in fields(config)]
    if missing := [name for name in names if name not in values]:
        raise DarkroomError(f"{folder / CONFIG}: lacks {', '.join(missing)}; assemble the pipeline again")
    return {name: values[name] for name in names}
