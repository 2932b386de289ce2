"""What autocast would compute in 32 bits between the products of a network in training, computed in 16.

Under bf16 autocast on CUDA PyTorch casts the inputs of norms and of enlargements up, and what comes out down again for
the next product; its group norm, besides, turns pictures that lie channels last around and back. Here pictures and
tokens stay as they are, and only statistics and sums are float32. Everywhere else, and in what is compiled, these are
PyTorch's operations.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from darkroom.nn.layers import kernels


def normed(norm: nn.GroupNorm, x: Tensor, activate: bool, added: Tensor | None = None) -> Tensor:
    """The group norm of x (N, C, H, W), or of x + added with `added` (N, C), and SiLU of that if `activate`."""
    if _in_16_bits(x) and x.ndim == 4:
        x = x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        apply: Any = _GroupNorm.apply
        out: Tensor = apply(x, norm.weight, norm.bias, added, norm.num_groups, norm.eps, activate)
        return out
    y: Tensor = norm(x if added is None else x + added[:, :, None, None])
    return silu_(y) if activate else y


def layer_normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """The layer norm of tokens (N, T, C)."""
    if _in_16_bits(x):
        with torch.autocast(x.device.type, enabled=False):  # inside, its statistics are float32 all the same
            weight, bias = norm.weight.to(torch.bfloat16), norm.bias.to(torch.bfloat16)
            return F.layer_norm(x.to(torch.bfloat16), norm.normalized_shape, weight, bias, norm.eps)
    out: Tensor = norm(x)
    return out


def enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) -> (N, C, *size), each position the nearest one's copy."""
    if _in_16_bits(x):
        with torch.autocast(x.device.type, enabled=False):
            return F.interpolate(x, size=size, mode="nearest")
    return F.interpolate(x, size=size, mode="nearest")


def silu_(x: Tensor) -> Tensor:
    """SiLU of a result that nobody else holds: in its place, where no gradient is taken."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def _in_16_bits(x: Tensor) -> bool:
    return (
        x.device.type == "cuda"
        and not torch.compiler.is_compiling()
        and torch.is_autocast_enabled("cuda")
        and torch.get_autocast_dtype("cuda") == torch.bfloat16
        and kernels.trainable(x.device)
    )


class _GroupNorm(torch.autograd.Function):
    """Keeps x and two numbers for each sample and channel; the rest is computed again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        added: Tensor | None,
        groups: int,
        eps: float,
        activate: bool,
    ) -> Tensor:
        kept = torch.empty(2, *x.shape[:2], dtype=torch.float32, device=x.device)
        out = kernels.group_norm(x, kernels.Norm(weight, bias, groups, eps), activate, added, kept)
        ctx.save_for_backward(x, weight, bias, kept)
        ctx.groups, ctx.activate = groups, activate
        ctx.added = None if added is None else added.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, kept = ctx.saved_tensors
        dx, of_weight, of_bias, of_added = kernels.group_norm_backward(
            dy, x, weight, bias, kept, ctx.groups, ctx.activate
        )
        more = None if ctx.added is None else of_added.to(ctx.added)
        return dx, of_weight.to(weight.dtype), of_bias.to(bias.dtype), more, None, None, None
