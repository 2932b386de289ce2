"""A denoiser with adapters, and its text encoder if that has some too, for an estimate of memory."""

from pathlib import Path
from typing import Any

from darkroom.config.networks import CLIPTextConfig, TokenSizes
from darkroom.config.sections import LoRAConfig, TrainUNet
from darkroom.config.text_encoder import PretrainedTextEncoder
from darkroom.core.artifact import CONFIG, read_json
from darkroom.nn.denoiser.adapted import AdaptedDenoiser
from darkroom.nn.denoiser.base import DenoisingNetwork
from darkroom.nn.text.clip import CLIPTextModel

SD_TEXT = {  # of an imported text encoder that is not there yet
    "vocab_size": 49408,
    "max_length": 77,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "intermediate_size": 3072,
}
THEIRS = {"max_length": "max_position_embeddings"}  # where its configuration has another word


def adapted(p: TrainUNet, lora: LoRAConfig, unet: DenoisingNetwork, encoder: Any) -> AdaptedDenoiser:
    """The network that train_unet moves; encoder: setup_text_encoder."""
    text = text_encoder(encoder) if lora.text_encoder and isinstance(encoder, PretrainedTextEncoder) else None
    return AdaptedDenoiser(unet, text, lora.targets, lora.rank, lora.alpha, halved=p.precision == "bf16")


def text_encoder(encoder: PretrainedTextEncoder) -> CLIPTextModel:
    """The imported text encoder; SD 1.x's where it is not there yet."""
    config = Path(encoder.path) / CONFIG
    found = read_json(config) if config.is_file() else {}
    values: dict[str, Any] = {key: found.get(THEIRS.get(key, key), usual) for key, usual in SD_TEXT.items()}
    return CLIPTextModel(CLIPTextConfig(**values), TokenSizes(bos_token_id=0, eos_token_id=0, pad_token_id=0))
