"""Networks on disk: a folder of config.json, weights and provenance.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from darkroom.core.artifact import CONFIG, PROVENANCE, REPRO, load_tensors, read_json, save_tensors, whole, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.inside import check_inside
from darkroom.core.tensors import check_finite

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
WEIGHTS = "model.safetensors"
Network = TypeVar("Network", bound=nn.Module)


def write_network(
    folder: Path, weights: str, network: nn.Module, config: dict[str, Any], origin: dict[str, Any]
) -> None:
    """Write a network's folder, whole or not at all.

    Args:
        weights: file name of the weights.
        config: what config.json says; `network` in it must rebuild the network.
        origin: what provenance.json says, see core.artifact.provenance.
    """
    with whole(folder) as beside:
        beside.mkdir()
        save_tensors(beside / weights, network.state_dict())
        write_json(beside / CONFIG, config)
        write_json(beside / PROVENANCE, origin)


def load_weights(network: Network, file: Path, device: torch.device, prefix: str = "", remedy: str = REPRO) -> Network:
    """Load weights strictly; the network comes back on `device`, in eval mode and frozen.

    Args:
        prefix: with which all names in the file begin. remedy: see core.artifact.read_json.

    Raises:
        DarkroomError: names the file and what does not fit or is not finite, or a link that leads out of its folder.
    """
    check_inside(file.parent)
    tensors = load_tensors(file, remedy)
    for key, value in tensors.items():
        check_finite(value, f"{file}: {key}", remedy)
    try:
        network.load_state_dict({key.removeprefix(prefix): value for key, value in tensors.items()})
    except RuntimeError as error:
        raise DarkroomError(f"{file}: does not fit its config.json: {' '.join(str(error).split())[:300]}") from None
    return network.to(device).eval().requires_grad_(False)


def read_network(
    folder: Path, weights: str, build: Callable[[dict[str, Any]], Network], device: torch.device
) -> Network:
    """The network of a folder written by `write_network`; `build` makes it from the `network` part of config.json."""
    return load_weights(build(read_json(folder / CONFIG)["network"]), folder / weights, device)
