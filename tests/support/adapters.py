"""Random adapters of tiny networks, in the names of several tools."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from darkroom.core.rng import seeded
from darkroom.interop.lora import Trained, write_adapter
from darkroom.interop.lora_names import Network
from darkroom.nn.denoiser.adapted import AdaptedDenoiser
from darkroom.nn.denoiser.unet import UNet2DConditionModel
from darkroom.nn.text.clip import CLIPTextModel

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "proj_in", "conv1")
RANK, ALPHA = 3, 6.0


def random_adapters(
    unet: UNet2DConditionModel, text: CLIPTextModel | None, seed: int = 0, targets: Sequence[str] = TARGETS
) -> AdaptedDenoiser:
    """The networks with adapters of which none is zero."""
    with seeded(seed, "adapters"):
        adapted = AdaptedDenoiser(unet, text, targets, RANK, ALPHA, halved=False)
        for value in adapted.state_dict().values():
            value.normal_(std=0.5 / value[0].numel() ** 0.5)
    return adapted


def write(path: Path, adapted: AdaptedDenoiser, inputs: dict[str, str] | None = None) -> Path:
    """The file of its adapters, as the stage writes it."""
    targets: dict[Network, Sequence[str]] = {"unet": TARGETS}
    if adapted.text_encoder is not None:
        targets["text_encoder"] = ("q_proj", "k_proj", "v_proj", "out_proj")
    write_adapter(path, adapted.state_dict(), Trained(RANK, ALPHA, targets, "0" * 32, inputs or {}))
    return path


def as_kohya(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under kohya's names, with an alpha for each layer."""
    found: dict[str, Tensor] = {}
    for key, value in tensors.items():
        layer, _, part = key.partition(".lora_")
        layer = layer.replace("text_encoder.", "lora_te_text_model_", 1).replace("unet.", "lora_unet_", 1)
        layer = layer.replace(".", "_")
        found[f"{layer}.lora_{'down' if part.startswith('A') else 'up'}.weight"] = value.contiguous()
        found[f"{layer}.alpha"] = torch.tensor(ALPHA)
    return found


def write_as_kohya(path: Path, adapted: AdaptedDenoiser) -> Path:
    save_file(as_kohya(adapted.state_dict()), path, {"ss_network_dim": json.dumps(RANK)})
    return path
