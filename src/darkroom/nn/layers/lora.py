"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): W x + (alpha / rank) B A x, in which A and B alone are trained.

A layer keeps the names of its own weights and gains lora_A.weight and lora_B.weight, the names of PEFT. At first B is
zero, so that a network with new adapters is the network without them.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.core.errors import DarkroomError

Network = TypeVar("Network", bound=nn.Module)
ADAPTER = "lora_"  # what the names of an adapter's own modules begin with


class _Adapted(nn.Module):
    """What both kinds of layer share. strength: 0 leaves the adapter out."""

    lora_A: nn.Module  # noqa: N815 # PEFT's names
    lora_B: nn.Module  # noqa: N815
    scale: float
    strength: float

    def _added(self, x: Tensor) -> Tensor:
        """(alpha / rank) B A x."""
        out: Tensor = self.lora_B(self.lora_A(x)) * (self.scale * self.strength)
        return out


class LoRALinear(nn.Linear, _Adapted):
    """A linear layer with an adapter: (..., in) -> (..., out)."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.scale, self.strength = alpha / rank, 1.0
        self.lora_A = nn.Linear(layer.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, layer.out_features, bias=False)
        _initialise(self.lora_A, self.lora_B, layer.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """W x + b + (alpha / rank) B A x."""
        out = F.linear(x, self.weight, self.bias)
        return out if self.strength == 0 else out + self._added(x)


class LoRAConv2d(nn.Conv2d, _Adapted):
    """A convolution with an adapter: A has its kernel, stride and padding, B is 1x1."""

    def __init__(self, layer: nn.Conv2d, rank: int, alpha: float) -> None:
        inside, outside, kernel = layer.in_channels, layer.out_channels, cast(tuple[int, int], layer.kernel_size)
        stride, padding = cast(tuple[int, int], layer.stride), cast(tuple[int, int], layer.padding)
        super().__init__(inside, outside, kernel, stride, padding, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.scale, self.strength = alpha / rank, 1.0
        self.lora_A = nn.Conv2d(inside, rank, kernel, stride, padding, bias=False)
        self.lora_B = nn.Conv2d(rank, outside, 1, bias=False)
        _initialise(self.lora_A, self.lora_B, layer.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H', W')."""
        out = super().forward(x)
        return out if self.strength == 0 else out + self._added(x)


def _initialise(a: nn.Linear | nn.Conv2d, b: nn.Linear | nn.Conv2d, device: torch.device) -> None:
    """A as PyTorch and PEFT begin a layer (Kaiming uniform), drawn on the CPU; B with zeros."""
    nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
    nn.init.zeros_(b.weight)
    a.to(device)
    b.to(device)


def is_adapter(name: str) -> bool:
    """Whether a weight of this name is an adapter's."""
    return any(part.startswith(ADAPTER) for part in name.split("."))


def rounded_by_autocast(network: nn.Module) -> dict[str, Tensor]:
    """The weights and biases of convolutions and linear layers, which autocast rounds to 16 bits at every call.

    Norms and embeddings, which it leaves alone, are not among them, nor are adapters, which are trained.
    """
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and not is_adapter(name)
    }
    return {
        f"{name}.{kind}" if name else kind: parameter
        for name, layer in layers.items()
        for kind, parameter in (("weight", layer.weight), ("bias", layer.bias))
        if parameter is not None
    }


def halve(network: Network) -> Network:
    """Itself, in bfloat16 what autocast would round to that; see `rounded_by_autocast`."""
    for parameter in rounded_by_autocast(network).values():
        parameter.data = parameter.data.to(torch.bfloat16)
    return network


def adapt(network: nn.Module, targets: Sequence[str], rank: int, alpha: float) -> list[str]:
    """Give adapters to the linear layers and convolutions that `targets` name, freeze all else; the layers' names.

    Args:
        targets: ends of names, such as "to_q" or "attn2.to_out.0", each of whole parts between dots.

    Raises:
        DarkroomError: a target names no layer; lists what could be named.
    """
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and not is_adapter(name)
    }
    for target in targets:
        if not any(_ends(name, target) for name in layers):
            known = ", ".join(sorted({_tail(name) for name in layers}))
            raise DarkroomError(
                f"train_unet.lora.targets: {target!r} is the end of no layer's name in {type(network).__name__}; "
                f"give some of {known}"
            )
    network.requires_grad_(False)
    found = [name for name in layers if any(_ends(name, target) for target in targets)]
    for name in found:
        layer, (parent, _, last) = layers[name], name.rpartition(".")
        kind = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
        setattr(network.get_submodule(parent), last, kind(layer, rank, alpha))  # type: ignore[arg-type]
    return found


def adapted_layers(network: nn.Module) -> Iterator[LoRALinear | LoRAConv2d]:
    """The layers of a network that have adapters."""
    return (module for module in network.modules() if isinstance(module, LoRALinear | LoRAConv2d))


def adapters_of(names: Iterable[str]) -> list[str]:
    """The names among these that are of adapters' weights, in order."""
    return [name for name in names if is_adapter(name)]


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _tail(name: str) -> str:
    """The last part of a name, with the one before where it is a number."""
    *before, last = name.split(".")
    return f"{before[-1]}.{last}" if last.isdecimal() and before else last
