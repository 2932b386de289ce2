"""Files of low-rank adapters: read strictly, under the names of several tools, added to weights, and written for PEFT.

An adapter adds strength · scale · B A to the weight W of each layer that it knows, with scale = alpha / rank (Hu et al.
2021, arXiv:2106.09685).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from darkroom.core.artifact import atomic_path, file_hash, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import JSON_BYTES
from darkroom.core.outside import parse_json
from darkroom.core.text import printable
from darkroom.interop.checkpoint import Checkpoint, open_checkpoint, some
from darkroom.interop.lora_names import TEXT_PREFIX, Layer, Network, Part, names_of, split
from darkroom.interop.lora_scale import scale_of
from darkroom.interop.model import Weights

FILE = "pytorch_lora_weights.safetensors"  # as diffusers names it
PEFT_NAME, PEFT_CONFIG = "adapter_model", "adapter_config.json"  # of PEFT's file, without its ending, and beside it
FILES = (FILE, f"{PEFT_NAME}.safetensors", "pytorch_lora_weights.bin", f"{PEFT_NAME}.bin")  # in a folder, by preference
CONFIGS, ORIGIN = "lora_adapter_metadata", "darkroom"  # keys of the file's metadata: PEFT's configurations, and ours
MOST = 10.0  # a strength is in [-MOST, MOST]
GIVE = "give an adapter that was trained on this model"


class LoRA(NamedTuple):
    """An adapter to draw with: its file, or the folder that it lies in, and how strongly it acts."""

    path: Path
    strength: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "LoRA":
        """FILE or FILE:STRENGTH.

        Raises:
            DarkroomError: no file of that name, or a strength out of range.
        """
        head, colon, tail = text.rpartition(":")
        if colon and head and not Path(text).exists():
            try:
                return cls(Path(head), checked_strength(float(tail), text))
            except ValueError:
                raise DarkroomError(f"--lora = {printable(text)}: give FILE or FILE:STRENGTH, such as 0.8") from None
        return cls(Path(text))


def checked_strength(strength: float, what: str) -> float:
    """A strength, if it is a number from -MOST to MOST.

    Raises:
        DarkroomError: it is not.
    """
    if not abs(strength) <= MOST:
        raise DarkroomError(f"{printable(what)}: strength {strength:g} is not between -{MOST:g} and {MOST:g}")
    return strength


@dataclass(frozen=True)
class Factors:
    """Of one layer. down: A, (rank, in) or (rank, in, kh, kw); up: B, (out, rank). scale: alpha / rank."""

    down: Tensor
    up: Tensor
    scale: float

    def product(self, shape: tuple[int, ...]) -> Tensor:
        """scale · B A, in the shape of the layer's weight."""
        return self.scale * (self.up @ self.down.flatten(1)).reshape(shape)


@dataclass(frozen=True)
class Adapter:
    """An adapter as it was read for one model.

    factors: of each layer that it changes. md5: of its file.
    base: content hash of the network that it was trained on; inputs: {path: content hash} of what it was trained from,
        both where the file says so.
    """

    path: Path
    md5: str
    strength: float
    factors: Mapping[Layer, Factors]
    base: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MergedWeights(Weights):
    """Weights to which adapters are added as each is read; those that no adapter changes stay as they are."""

    added: Mapping[str, Sequence[tuple[float, Factors]]] = field(default_factory=dict)

    def tensor(self, key: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """See `Weights`."""
        if key not in self.added:
            return super().tensor(key, dtype)
        value = super().tensor(key)
        for strength, factors in self.added[key]:
            value = value + strength * factors.product(self.shapes[key])
        return value.to(dtype)


def merged(weights: Weights, adapters: Sequence[Adapter], network: Network) -> Weights:
    """The weights of one network of a model with adapters that were read for it; strength 0 changes no bit."""
    added: dict[str, list[tuple[float, Factors]]] = {}
    for adapter in adapters:
        for layer, factors in adapter.factors.items():
            if layer.network == network and adapter.strength != 0:
                added.setdefault(f"{layer.name}.weight", []).append((adapter.strength, factors))
    return MergedWeights(weights.file, weights.keys, weights.shapes, added) if added else weights


def read_adapter(lora: LoRA, unet: Weights, text: Weights | None) -> Adapter:
    """An adapter for a model of these weights: every key of its file is used once.

    Raises:
        DarkroomError: the file is missing, torn or holds code; or it lists the keys that are of no layer here, that
            lack their other half, or that are of another shape.
    """
    path = adapter_file(lora.path)
    file = open_checkpoint(path)
    shapes = {"unet": _layers(unet), "text_encoder": {} if text is None else _layers(text)}
    adapted = _keys_by_layer(file, names_of(shapes["unet"], shapes["text_encoder"]))
    configs, origin = _metadata(path)
    wrong = [
        said for layer, keys in adapted.items() if (said := _misfit(file, keys, shapes[layer.network][layer.name]))
    ]
    if wrong:
        raise DarkroomError(f"{path}: {len(wrong)} layers do not fit: {some(wrong)}; {GIVE}")
    factors = dict[Layer, Factors]()
    for layer, keys in adapted.items():
        down, up = file.float32(keys["down"]), file.float32(keys["up"]).flatten(1)
        alpha = file.number(keys["alpha"]) if "alpha" in keys else None
        names = [layer.name, TEXT_PREFIX + layer.name] if layer.network == "text_encoder" else [layer.name]
        factors[layer] = Factors(down, up, scale_of(path, configs.get(layer.network, {}), names, alpha, len(down)))
    base, inputs = _origin(origin)
    return Adapter(path, file_hash(path), checked_strength(lora.strength, str(lora.path)), factors, base, inputs)


def adapter_file(path: Path) -> Path:
    """The file of an adapter, which may be named by its folder.

    Raises:
        DarkroomError: the folder holds none.
    """
    if not path.is_dir():
        return path
    found = [path / name for name in FILES if (path / name).is_file()]
    if not found:
        raise DarkroomError(f"{path}: holds none of {', '.join(FILES)}; name the adapter's file")
    return found[0]


def _layers(weights: Weights) -> dict[str, tuple[int, ...]]:
    """{layer: shape of its weight} of what can have an adapter."""
    return {
        key.removesuffix(".weight"): shape
        for key, shape in weights.shapes.items()
        if key.endswith(".weight") and len(shape) > 1 and "_embedding.weight" not in key
    }


def _misfit(file: Checkpoint, keys: Mapping[Part, str], weight: tuple[int, ...]) -> str:
    """What is wrong with the shapes of a layer's factors, for a weight of this shape; "" if nothing is."""
    missing = [part for part in ("down", "up") if part not in keys]
    if missing:
        return f"{next(iter(keys.values()))} has no {missing[0]}"
    down, up = file.shapes[keys["down"]], file.shapes[keys["up"]]
    matrices = len(down) > 1 and len(up) > 1 and down[0] > 0
    if not matrices or (up[0], math.prod(up[1:]), math.prod(down[1:])) != (weight[0], down[0], math.prod(weight[1:])):
        return f"{keys['down']} and its other half are {[*up]} by {[*down]}, for a weight of {[*weight]}"
    if "alpha" in keys and (alpha := file.shapes[keys["alpha"]]) not in ((), (1,)):
        return f"{keys['alpha']} is {[*alpha]}, not one number"
    return ""


def _keys_by_layer(file: Checkpoint, names: Mapping[str, Layer]) -> dict[Layer, dict[Part, str]]:
    """{layer: {part: key}}; every key of the file is in it, once.

    Raises:
        DarkroomError: lists those that are not.
    """
    found: dict[Layer, dict[Part, str]] = {}
    unknown = []
    for key in file.shapes:
        parted = split(key)
        layer = names.get(parted[0]) if parted else None
        if parted is None or layer is None:
            unknown.append(key)
            continue
        keys = found.setdefault(layer, {})
        if parted[1] in keys:
            raise DarkroomError(
                f"{file.path}: {printable(key)} and {printable(keys[parted[1]])} are the same factor; give it once"
            )
        keys[parted[1]] = key
    if unknown:
        of = f"{len(unknown)} of {len(file.shapes)} keys are of no layer of this model"
        raise DarkroomError(f"{file.path}: {of} ({some(unknown)}); {GIVE}")
    return found


def _metadata(path: Path) -> tuple[dict[Network, Mapping[str, Any]], Mapping[str, Any]]:
    """PEFT's configuration of each network, and what Darkroom says of the adapter's origin."""
    texts: Mapping[str, str] = {}
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                texts = file.metadata() or {}
        except (SafetensorError, OSError):
            texts = {}
    try:
        said = parse_json(texts.get(CONFIGS) or "{}")
        origin = parse_json(texts.get(ORIGIN) or "{}")
    except ValueError as error:
        raise DarkroomError(f"{path}: its metadata are not JSON ({error}); fetch it again") from None
    said, origin = (one if isinstance(one, dict) else {} for one in (said, origin))
    beside = path.parent / PEFT_CONFIG
    if path.stem == PEFT_NAME and beside.is_file():
        values = read_json(beside, "fetch it again", JSON_BYTES)
        return {"unet": values, "text_encoder": values}, origin
    names: tuple[Network, ...] = ("unet", "text_encoder")
    configs: dict[Network, Mapping[str, Any]] = {}
    for name in names:
        prefix = f"{name}."
        configs[name] = {key.removeprefix(prefix): value for key, value in said.items() if key.startswith(prefix)}
    return configs, origin


def _origin(origin: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    base, inputs = origin.get("base", ""), origin.get("inputs", {})
    known = isinstance(inputs, dict) and all(isinstance(value, str) for value in inputs.values())
    return (base if isinstance(base, str) else ""), (dict(inputs) if known else {})


@dataclass(frozen=True)
class Trained:
    """How an adapter came about, for its file.

    targets: of each network that has adapters, the ends of the names of the layers. base: content hash of the network
    that it was trained on; inputs: {path: content hash} of all that it was trained from.
    """

    rank: int
    alpha: float
    targets: Mapping[Network, Sequence[str]]
    base: str
    inputs: Mapping[str, str]


def write_adapter(path: Path, tensors: Mapping[str, Tensor], trained: Trained) -> None:
    """Write an adapter as diffusers' `load_lora_weights` and this module read it; equal ones are equal to the byte.

    Args:
        tensors: under the names of `AdaptedDenoiser`.
    """
    text = "text_encoder."
    tensors_of_file = {
        text + TEXT_PREFIX + key.removeprefix(text) if key.startswith(text) else key: value.detach().cpu().contiguous()
        for key, value in tensors.items()
    }
    configs = {
        f"{network}.{key}": value
        for network, targets in trained.targets.items()
        for key, value in (("r", trained.rank), ("lora_alpha", trained.alpha), ("target_modules", [*targets]))
    }
    origin = {"base": trained.base, "inputs": dict(trained.inputs)}
    metadata = {
        "format": "pt",
        CONFIGS: json.dumps(configs, sort_keys=True),
        ORIGIN: json.dumps(origin, sort_keys=True),
    }
    with atomic_path(path) as beside:
        beside.write_bytes(_sorted_header(save(tensors_of_file, metadata)))


def _sorted_header(data: bytes) -> bytes:
    """A safetensors file with its metadata in order: safetensors itself writes two keys of them in any."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
