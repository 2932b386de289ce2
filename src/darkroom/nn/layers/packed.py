"""The layers of networks that are no longer trained, in the form in which each device computes them fastest.

On CPUs kernels are laid out once, as oneDNN wants them, where a convolution would do so at every call. On CUDA they lie
channels last, and in 16 bits what stands between two products is one pass over memory (see `nn.kernels`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.nn.layers import kernels
from darkroom.nn.layers.fused_norm import silu_

PACKED_LINEAR = 2**17  # entries of a float32 weight from which oneDNN's product is quicker than the BLAS library's

Layer = Callable[[Tensor], Tensor]
Convolution = Callable[[Tensor, Tensor | None], Tensor]  # (x, bias) -> x
Norm = Callable[[Tensor, Tensor | None], Tensor]  # (x (N, C, H, W), what is added to it before (N, C) or None) -> x


def packs(weight: Tensor) -> bool:
    """Whether PyTorch has oneDNN's operators on weights laid out in advance, and this processor the instructions."""
    ops: Any = torch.ops.mkldnn
    if weight.device.type != "cpu" or not hasattr(ops, "_convolution_pointwise"):
        return False
    return weight.dtype == torch.float32 or bool(ops._is_mkldnn_bf16_supported())


def linear(weight: Tensor, bias: Tensor | None) -> Layer:
    """x (..., in) -> (..., out)."""
    if not packs(weight) or (weight.dtype == torch.float32 and weight.numel() < PACKED_LINEAR):
        return lambda x: F.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    run = torch.ops.mkldnn._linear_pointwise
    return lambda x: run(x, packed, bias, "none", [], "")


@dataclass(frozen=True)
class Layers:
    """Makes them, for tensors of `dtype` on `device`.

    copies: convolutions and linear layers that something is made of stay as they are; otherwise their weights are taken
        over, none is in memory twice, and they are of no use afterwards.
    """

    device: torch.device
    dtype: torch.dtype
    copies: bool = False

    @cached_property
    def fused(self) -> bool:
        """Whether `nn.kernels` compute what stands between products."""
        return kernels.usable(self.device, self.dtype)

    def parameters(self, layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor | None]:
        """The weight and bias of a layer."""
        weight, bias = layer.weight.data, None if layer.bias is None else layer.bias.data
        if self.copies:
            return weight.to(self.dtype), None if bias is None else bias.to(self.dtype)
        layer.register_parameter("weight", None)
        layer.register_parameter("bias", None)
        return weight, bias

    def convolution(self, layer: nn.Conv2d, side: int) -> Convolution:
        """The convolution of inputs of about `side` x `side`, with a bias that is given, or without."""
        (weight, _), stride, ones = self.parameters(layer), list(layer.stride), [1, 1]
        assert not isinstance(layer.padding, str)
        padding = list(layer.padding)
        if not packs(weight):
            plain = weight.contiguous(memory_format=torch.channels_last)
            return lambda x, bias: F.conv2d(x, plain, bias, stride, padding)
        like = [2, layer.in_channels, side, side]
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, ones, 1, like)
        run = torch.ops.mkldnn._convolution_pointwise
        return lambda x, bias: run(x, packed, bias, padding, stride, ones, 1, "none", [], "")

    def conv(self, layer: nn.Conv2d, side: int) -> Layer:
        """The same with its own bias."""
        bias = self.bias(layer)
        convolution = self.convolution(layer, side)
        return lambda x: convolution(x, bias)

    def bias(self, layer: nn.Conv2d | nn.Linear) -> Tensor | None:
        """Of a layer whose parameters are not yet taken."""
        return None if layer.bias is None else layer.bias.data.to(self.dtype)

    def group_norm(self, norm: nn.GroupNorm, silu: bool) -> Norm:
        """The group norm, and SiLU of it."""
        weight, bias, groups, eps = norm.weight.data, norm.bias.data, norm.num_groups, norm.eps
        if self.fused:
            return lambda x, added: kernels.group_norm(x, kernels.Norm(weight, bias, groups, eps), silu, added)

        def run(x: Tensor, added: Tensor | None) -> Tensor:
            if added is not None:
                x = x.add_(added[:, :, None, None])
            if x.device.type == "cpu" or x.dtype == torch.float32:
                x = F.group_norm(x, groups, weight, bias, eps)
                return silu_(x) if silu else x
            x = F.group_norm(x.float(), groups, weight, bias, eps)  # CUDA's takes numbers of one type
            return (F.silu(x, inplace=True) if silu else x).to(self.dtype)

        return run

    def layer_norm(self, norm: nn.LayerNorm) -> Layer:
        """The layer norm of tokens (N, T, C)."""
        weight, bias, shape, eps = norm.weight.data, norm.bias.data, norm.normalized_shape, norm.eps
        if self.fused:
            return lambda x: kernels.layer_norm(x, weight, bias, eps)

        def run(x: Tensor) -> Tensor:
            if x.device.type == "cpu" or x.dtype == torch.float32:
                return F.layer_norm(x, shape, weight, bias, eps)
            return F.layer_norm(x.float(), shape, weight, bias, eps).to(self.dtype)

        return run

    def gated(self) -> Layer:
        """(..., 2 n), values before gates -> the values times the GELU of the gates, (..., n)."""
        if self.fused:
            return kernels.gated

        def run(x: Tensor) -> Tensor:
            value, gate = x.chunk(2, dim=-1)
            return F.gelu(gate).mul_(value)

        return run

    def linear(self, layer: nn.Linear) -> Layer:
        """A linear layer."""
        return linear(*self.parameters(layer))

    def projection(self, layer: nn.Conv2d | nn.Linear, more: Tensor | None = None) -> Layer:
        """A linear layer over channels, which Stable Diffusion 1.x holds as a 1x1 convolution; more: to add to it."""
        weight, bias = self.parameters(layer)
        if more is not None:
            bias = more if bias is None else bias + more
        return linear(weight.flatten(1).contiguous(), bias)

    def pointwise(self, layer: nn.Conv2d, more: Tensor | None = None) -> Layer:
        """A 1x1 convolution as a product: packed for convolution it is ten times slower for wide, small pictures."""
        product = self.projection(layer, more)
        return lambda x: product(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def residual(self, conv: nn.Conv2d, shortcut: nn.Conv2d | None, side: int) -> Callable[[Tensor, Tensor], Tensor]:
        """(h, x) -> conv(h) + shortcut(x), or + x where there is no layer on the short cut."""
        if not self.fused:
            main, aside = self.conv(conv, side), None if shortcut is None else self.pointwise(shortcut)
            return lambda h, x: main(h).add_(x if aside is None else aside(x))
        bias = self.bias(conv)
        assert bias is not None
        bare = self.convolution(conv, side)
        if shortcut is None:
            return lambda h, x: kernels.add_(bare(h, None), x, bias)
        both = self.pointwise(shortcut, bias)
        return lambda h, x: bare(h, None).add_(both(x))
