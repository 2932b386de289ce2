"""What a CLIP text encoder's configuration in transformers says; silent, it means Stable Diffusion 1.x's."""

from typing import Any

TEXT_SILENT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
TEXT_THEIRS = {"max_length": "max_position_embeddings"}  # where our word is not theirs
