"""Adapters of a pipeline of ours: read for its networks, and made part of its weights."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.core.artifact import CONFIG, PROVENANCE, atomic_path, model_hash, read_json, remove, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import DIFFUSERS_WEIGHTS, WEIGHTS
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.inference.folder import DIFFUSERS_KIND, PipelineInfo
from darkroom.inference.words import FILE as WORDS
from darkroom.interop.configs import read_text_config, read_unet_config
from darkroom.interop.diffusers import TEXT_ENCODER, TEXT_PREFIX, TOKENIZER, UNET, folder_weights, write_network
from darkroom.interop.lora import Adapter, LoRA, merged, read_adapter
from darkroom.interop.lora_names import Network
from darkroom.interop.model import Weights

OF_THE_BASE = ("evaluation.json", "README.md", WORDS)  # what was measured and is known of it, not of what is made of it


def _weights(path: Path, info: PipelineInfo) -> dict[Network, Weights]:
    """Of the networks of a pipeline that can have adapters.

    Raises:
        DarkroomError: its denoiser is of a kind that other tools have no adapters for.
    """
    if info.network != DIFFUSERS_KIND:
        raise DarkroomError(f"{path}: network = {info.network!r}: adapters are read for {DIFFUSERS_KIND!r} alone")
    found: dict[Network, Weights] = {
        "unet": folder_weights(read_unet_config(path / UNET), path / UNET, DIFFUSERS_WEIGHTS)
    }
    if info.condition.of_text:
        words, text = CLIPTokenizer.read(path / TOKENIZER), path / TEXT_ENCODER
        spec = read_text_config(text, words.bos_token_id, words.eos_token_id)
        found["text_encoder"] = folder_weights(spec, text, WEIGHTS)
    return found


def read_adapters(path: Path, info: PipelineInfo, loras: Sequence[LoRA]) -> tuple[Adapter, ...]:
    """Adapters for the pipeline of ours at `path`.

    Raises:
        DarkroomError: see `interop.lora.read_adapter`, or its denoiser is of a kind that has none.
    """
    if not loras:
        return ()
    weights = _weights(path, info)
    return tuple(read_adapter(lora, weights["unet"], weights.get("text_encoder")) for lora in loras)


def merge(source: Path, destination: Path, loras: Sequence[LoRA]) -> tuple[Adapter, ...]:
    """Write the pipeline of ours in `source` with adapters added to its weights, whole or not at all; those adapters.

    Raises:
        DarkroomError: see `PipelineInfo.read` and `read_adapters`.
    """
    info = PipelineInfo.read(source)
    adapters = read_adapters(source, info, loras)
    with atomic_path(destination) as folder:
        shutil.copytree(source, folder)
        for name in OF_THE_BASE:
            remove(folder / name)
        for network, weights in _weights(source, info).items():
            config: Mapping[str, Any] = read_json(source / network / CONFIG)
            remove(folder / network)
            name, prefix = (DIFFUSERS_WEIGHTS, "") if network == "unet" else (WEIGHTS, TEXT_PREFIX)
            write_network(folder / network, name, dict(config), merged(weights, adapters, network), prefix=prefix)
        inputs = {source.as_posix(): model_hash(source)}
        inputs |= {adapter.path.as_posix(): adapter.md5 for adapter in adapters}
        added = [{"file": a.path.as_posix(), "md5": a.md5, "strength": a.strength} for a in adapters]
        write_json(folder / PROVENANCE, {"inputs": inputs, "adapters": added})
    return adapters
