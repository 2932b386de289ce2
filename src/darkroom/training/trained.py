"""Reading back a trained autoencoder."""

from pathlib import Path

import torch

from darkroom.config.networks import AutoencoderSpec, IdentityConfig, read_section
from darkroom.core.artifact import CONFIG, REPRO, read_json
from darkroom.core.weights import DIFFUSERS_WEIGHTS, load_weights
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.autoencoder.vae import AutoencoderKL


def read_autoencoder(folder: Path, device: torch.device) -> Autoencoder:
    """artifacts/vae, its weights fixed."""
    config, file = read_json(folder / CONFIG), str(folder / CONFIG)
    if config["kind"] == "identity":
        return IdentityAutoencoder(read_section(IdentityConfig, config["network"], file, REPRO))
    spec = AutoencoderSpec.read(config, file, REPRO)
    return load_weights(AutoencoderKL(spec.network, spec.sizes), folder / DIFFUSERS_WEIGHTS, device)
