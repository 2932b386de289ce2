"""Reading back trained networks in the form the next stage works with."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from darkroom.core.artifact import CONFIG, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import DIFFUSERS_WEIGHTS, WEIGHTS, load_weights, read_network
from darkroom.nn.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.text import CLIPTextConfig, CLIPTextModel
from darkroom.nn.vae import AutoencoderKL, AutoencoderKLConfig


def read_autoencoder(folder: Path, device: torch.device) -> Autoencoder:
    """artifacts/vae as a frozen network."""
    if read_json(folder / CONFIG)["kind"] == "identity":
        return IdentityAutoencoder()
    return read_network(folder, DIFFUSERS_WEIGHTS, lambda c: AutoencoderKL(AutoencoderKLConfig(**c)), device)


def read_pretrained_autoencoder(folder: Path, device: torch.device) -> tuple[AutoencoderKL, float | None]:
    """A diffusers AutoencoderKL folder, and the scaling factor it was made for.

    Raises:
        DarkroomError: the folder or its config.json does not describe an AutoencoderKL.
    """
    config: dict[str, Any] = read_json(folder / CONFIG)
    if config.get("_class_name") != "AutoencoderKL":
        raise DarkroomError(f"{folder / CONFIG}: _class_name is {config.get('_class_name')!r}, not AutoencoderKL")
    known = {f.name: config[f.name] for f in fields(AutoencoderKLConfig) if f.name in config}
    vae = load_weights(AutoencoderKL(AutoencoderKLConfig(**known)), folder / DIFFUSERS_WEIGHTS, device)
    return vae, config.get("scaling_factor")


def read_text_encoder(folder: Path, device: torch.device) -> CLIPTextModel:
    """artifacts/text_encoder of kind text as a frozen network."""
    return read_network(folder, WEIGHTS, lambda c: CLIPTextModel(CLIPTextConfig(**c)), device)
