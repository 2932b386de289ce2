"""The names under which tools keep low-rank adapters: PEFT's and diffusers', of several years, and kohya's.

Of each layer there are two factors, A (down) and B (up), and maybe alpha. diffusers and PEFT write the layer's name
with dots behind the network's (unet.….to_q.lora_A.weight); kohya's scripts write it with underscores throughout
(lora_unet_…_to_q.lora_down.weight), and so do the many tools that came after them.
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

Network = Literal["unet", "text_encoder"]
Part = Literal["down", "up", "alpha"]
TEXT_PREFIX = "text_model."  # of layers of the text encoder, in most files; transformers has none since 5
PEFT_PREFIX = "base_model.model."  # of what PEFT itself saves
KOHYA_UNET, KOHYA_TEXT = "lora_unet_", ("lora_te_", "lora_te1_")  # the last where there could be a second encoder
PARTS: dict[str, Part] = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",  # of a PEFT model's own state_dict
    ".lora_B.default.weight": "up",
    ".lora_down.weight": "down",  # kohya
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",  # diffusers until 2023
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".alpha": "alpha",
}
# diffusers' first form: attn1.processor.to_q_lora.down.weight, and of the text encoder self_attn.to_q_lora.down.weight
FIRST = re.compile(r"(.*?)(?:\.processor)?\.to_([qkv]|out)_lora\.(down|up)\.weight")


class Layer(NamedTuple):
    """A layer of a network, by our name for it."""

    network: Network
    name: str


def split(key: str) -> tuple[str, Part] | None:
    """The name of the layer as the file has it, and which part of its adapter; None: neither factor nor alpha."""
    if found := FIRST.fullmatch(key):
        attention, projection, part = found.groups()
        if attention.endswith(".self_attn"):
            layer = f"{attention}.{projection}_proj"
        else:
            layer = f"{attention}.to_{'out.0' if projection == 'out' else projection}"
        return layer, "down" if part == "down" else "up"
    return next(((key.removesuffix(end), part) for end, part in PARTS.items() if key.endswith(end)), None)


def names_of(unet: Iterable[str], text: Iterable[str]) -> dict[str, Layer]:
    """{every name that a tool has for a layer: that layer}; unet, text: our names of the layers of both."""
    found: dict[str, Layer] = {}
    for name in unet:
        layer = Layer("unet", name)
        for alias in (name, f"unet.{name}", PEFT_PREFIX + name, PEFT_PREFIX + f"unet.{name}"):
            found[alias] = layer
        found[KOHYA_UNET + name.replace(".", "_")] = layer
    for name in text:
        layer = Layer("text_encoder", name)
        for inner in (name, TEXT_PREFIX + name):
            for alias in (inner, f"text_encoder.{inner}", PEFT_PREFIX + inner):
                found.setdefault(alias, layer)
            for prefix in KOHYA_TEXT:
                found[prefix + inner.replace(".", "_")] = layer
    return found
