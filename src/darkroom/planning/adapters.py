"""A denoiser with adapters, and its text encoder if that has some too, for an estimate of memory."""

from pathlib import Path
from typing import Any

from darkroom.config.clip_text import TEXT_SILENT, TEXT_THEIRS
from darkroom.config.networks import CLIPTextConfig, TokenSizes
from darkroom.config.sections import LoRAConfig, TrainUNet
from darkroom.config.text_encoder import PretrainedTextEncoder
from darkroom.core.artifact import CONFIG, read_json
from darkroom.nn.denoiser.adapted import AdaptedDenoiser
from darkroom.nn.denoiser.base import DenoisingNetwork
from darkroom.nn.text.clip import CLIPTextModel


def adapted(p: TrainUNet, lora: LoRAConfig, unet: DenoisingNetwork, encoder: Any) -> AdaptedDenoiser:
    """The network that train_unet moves; encoder: setup_text_encoder."""
    text = text_encoder(encoder) if lora.text_encoder and isinstance(encoder, PretrainedTextEncoder) else None
    return AdaptedDenoiser(unet, text, lora.targets, lora.rank, lora.alpha, halved=p.precision == "bf16")


def text_encoder(encoder: PretrainedTextEncoder) -> CLIPTextModel:
    """The imported text encoder; SD 1.x's where it is not there yet."""
    config = Path(encoder.path) / CONFIG
    found = read_json(config) if config.is_file() else {}
    theirs = {key: TEXT_THEIRS.get(key, key) for key in CLIPTextConfig.model_fields}
    values = {key: found.get(their, TEXT_SILENT[their]) for key, their in theirs.items()}
    return CLIPTextModel(CLIPTextConfig(**values), TokenSizes(bos_token_id=0, eos_token_id=0, pad_token_id=0))
