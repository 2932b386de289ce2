"""Reading back trained networks in the form the next stage works with."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from darkroom.core.artifact import CONFIG, PIPELINE, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.symlinks import check_inside
from darkroom.core.weights import DIFFUSERS_WEIGHTS, WEIGHTS, load_weights, read_network
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.autoencoder.vae import AutoencoderKL, AutoencoderKLConfig
from darkroom.nn.text.clip import CLIPTextConfig, CLIPTextModel


def read_autoencoder(folder: Path, device: torch.device) -> Autoencoder:
    """artifacts/vae as a frozen network."""
    config = read_json(folder / CONFIG)
    if config["kind"] == "identity":
        return IdentityAutoencoder(*config["identity_range"])
    return read_network(folder, DIFFUSERS_WEIGHTS, lambda c: AutoencoderKL(AutoencoderKLConfig(**c)), device)


def imported_config(folder: Path) -> dict[str, Any]:
    """config.json of a network in a folder that `darkroom import` wrote, where it is complete and known to be ours.

    Raises:
        DarkroomError: the folder is no part of such a one, or a link leads out of the whole.
    """
    if not (folder.parent / PIPELINE).is_file():
        raise DarkroomError(
            f"{folder}: is no part of an imported model; take one in with darkroom import SOURCE {folder.parent}"
        )
    check_inside(folder.parent)
    values: dict[str, Any] = read_json(folder / CONFIG)
    return values


def known(kind: Any, values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Of the values in a folder's config.json those that a configuration's dataclass has fields for.

    Raises:
        DarkroomError: one is missing.
    """
    names = [field.name for field in fields(kind)]
    if missing := [name for name in names if name not in values]:
        raise DarkroomError(f"{folder / CONFIG}: lacks {', '.join(missing)}; import the model again")
    return {name: values[name] for name in names}


def read_pretrained_autoencoder(folder: Path, device: torch.device) -> tuple[AutoencoderKL, float]:
    """vae/ of an imported model, frozen, and the scaling factor it was made for.

    Raises:
        DarkroomError: the folder is no such thing, or its config.json says no scaling factor.
    """
    config = imported_config(folder)
    if config.get("_class_name") != "AutoencoderKL":
        raise DarkroomError(f"{folder / CONFIG}: _class_name is {config.get('_class_name')!r}, not AutoencoderKL")
    if not isinstance(factor := config.get("scaling_factor"), int | float):
        raise DarkroomError(
            f"{folder / CONFIG}: scaling_factor is {factor!r}, not the number that the latents are multiplied by; "
            "import the model again"
        )
    network = AutoencoderKL(AutoencoderKLConfig(**known(AutoencoderKLConfig, config, folder)))
    return load_weights(network, folder / DIFFUSERS_WEIGHTS, device), float(factor)


def read_pretrained_text_encoder(folder: Path, device: torch.device) -> CLIPTextModel:
    """text_encoder/ of an imported model, frozen.

    Raises:
        DarkroomError: the folder is no such thing.
    """
    config = imported_config(folder)
    if config.get("architectures") != ["CLIPTextModel"]:
        raise DarkroomError(f"{folder / CONFIG}: architectures is {config.get('architectures')!r}, not CLIPTextModel")
    network = CLIPTextModel(CLIPTextConfig(**known(CLIPTextConfig, config, folder)))
    return load_weights(network, folder / WEIGHTS, device, prefix="text_model.")


def read_text_encoder(folder: Path, device: torch.device) -> CLIPTextModel:
    """artifacts/text_encoder of kind text as a frozen network."""
    return read_network(folder, WEIGHTS, lambda c: CLIPTextModel(CLIPTextConfig(**c)), device)
