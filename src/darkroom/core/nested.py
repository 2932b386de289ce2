"""State dictionaries as safetensors and JSON: nested dicts, lists and tuples of tensors, numbers and texts, exactly."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LAST = torch.channels_last


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """`value` as JSON, its tensors put into `tensors` under their paths.

    Raises TypeError: something that is none of these, such as an object of a class.
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        kept = value.ndim == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=LAST)
        return {"tensor": name, **({"channels_last": True} if kept else {})}
    if isinstance(value, Mapping):
        return {"dict": [[pack(k, tensors), pack(v, tensors, f"{name}/{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [pack(item, tensors, f"{name}/{i}") for i, item in enumerate(value)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: {type(value).__name__} is not a state that can be saved")


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given; tensors in memory of their own, laid out as they were."""
    if not isinstance(packed, dict):
        return packed
    if "tensor" in packed:
        tensor = tensors[packed["tensor"]]
        return tensor.clone(memory_format=LAST if packed.get("channels_last") else torch.contiguous_format)
    if "dict" in packed:
        return {unpack(k, tensors): unpack(v, tensors) for k, v in packed["dict"]}
    if "float" in packed:
        return float(packed["float"])
    kind, items = next(iter(packed.items()))
    unpacked = [unpack(item, tensors) for item in items]
    return tuple(unpacked) if kind == "tuple" else unpacked
