"""What networks compute between their products, each in one pass over memory: for CUDA, in 16 bits.

PyTorch's group norm for CUDA turns a channels-last picture around and back, and the activation behind it, the time
before it and the bias of a convolution each go through memory once more. Here none does. Statistics are float32.

Only where `usable`, or in training `trainable`: elsewhere the networks do without. Inputs are 16-bit; weights and
biases of any type.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.core.device import runtime

log = logging.getLogger("darkroom")

TOLERANCE = 0.05  # by which the trial may differ from PyTorch: of numbers up to 4, rounded to 8 bits


@cache
def usable(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine can build and run these programs for tensors of `dtype` on `device`, and they are right."""
    if device.type != "cuda" or dtype == torch.float32:
        return False
    return _holds(lambda: _trial(device, dtype), "drawing and encoding")


@cache
def trainable(device: torch.device) -> bool:
    """Whether the group norm and its gradients are right in bf16 on `device`, and `fused_norms` is set."""
    if device.type != "cuda" or not runtime().fused_norms:
        return False
    return _holds(lambda: _trial_of_gradients(device), "training")


def _holds(trial: Callable[[], bool], work: str) -> bool:
    try:
        right = trial()
        reason = "they gave other numbers than PyTorch"
    except Exception as error:  # no compiler, no Triton, an older GPU: all end in one slower way
        right, reason = False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not right:
        log.warning("%s without fused kernels, which is slower: %s", work, reason)
    return right


def _tried(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (2, 40, 8, 8), channels last, and a weight and a bias for their channels."""
    ramp = torch.linspace(-2, 2, 2 * 40 * 8 * 8, device=device)
    x = ramp[torch.arange(len(ramp), device=device) * 7919 % len(ramp)].view(2, 40, 8, 8)
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    return x, torch.linspace(0.5, 1.5, 40, device=device), torch.linspace(-1, 1, 40, device=device)


def _trial(device: torch.device, dtype: torch.dtype) -> bool:
    x, weight, bias = _tried(device, dtype)
    wanted = F.silu(F.group_norm(x.float() + bias[:, None, None], 8, weight, bias, 1e-5))
    found = group_norm(x, Norm(weight, bias, 8, 1e-5), silu=True, added=bias.expand(2, -1))
    tokens = x.permute(0, 2, 3, 1).reshape(128, 40)
    return _agree(
        (found, wanted),
        (layer_norm(tokens, weight, bias, 1e-5), F.layer_norm(tokens.float(), (40,), weight, bias, 1e-5)),
        (gated(tokens), tokens[:, :20].float() * F.gelu(tokens[:, 20:].float())),
        (add_(x.clone(), x, bias), 2 * x.float() + bias[:, None, None]),
    )


def _trial_of_gradients(device: torch.device) -> bool:
    """Of a norm with all that may be around it. It may be called for in a block that keeps account of saved tensors."""
    x, weight, bias = _tried(device, torch.bfloat16)
    added, kept = bias.flip(0).expand(2, -1), torch.empty(2, 2, 40, device=device)
    dy = x.flip(0)

    def same(picture: Tensor) -> Tensor:
        return picture

    contexts = torch.inference_mode(False), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(same, same)
    with contexts[0], contexts[1], contexts[2], torch.autocast(device.type, enabled=False):
        leaves = [value.float().clone().requires_grad_() for value in (x, weight, bias, added)]
        n = F.group_norm(leaves[0] + leaves[3][:, :, None, None], 8, leaves[1], leaves[2], 1e-5)
        wanted = F.silu(n)
        gradients = torch.autograd.grad(wanted, leaves, dy.float())
    with torch.no_grad():
        found = group_norm(x, Norm(weight, bias, 8, 1e-5), True, added, kept)
        return _agree(
            (found, wanted), *zip(group_norm_backward(dy, x, weight, bias, kept, 8, True), gradients, strict=True)
        )


def _agree(*pairs: tuple[Tensor, Tensor]) -> bool:
    """Whether each of ours is theirs but for rounding, by the largest of theirs where that is above 4."""
    return all(
        bool(((ours.float() - theirs).abs() <= TOLERANCE * (theirs.abs().max() / 4).clamp(min=1)).all())
        for ours, theirs in pairs
    )


@cache
def _programs() -> Any:
    from darkroom.nn.layers import triton_kernels

    return triton_kernels


class Norm(NamedTuple):
    """A group norm's weight (C,), bias (C,), number of groups and epsilon."""

    weight: Tensor
    bias: Tensor
    groups: int
    eps: float


def group_norm(x: Tensor, norm: Norm, silu: bool, added: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
    """The group norm of x (N, C, H, W), or of x + added with `added` (N, C), and SiLU of that; channels last.

    kept: (2, N, C) float32, filled with what `group_norm_backward` needs to know.
    """
    p = _programs()
    weight, bias, groups, eps = norm
    x = x.contiguous(memory_format=torch.channels_last)
    n, channels, positions, width, chunk, chunks, slices = _cut(x, groups)
    sums = torch.empty(2, n, chunks, channels, device=x.device)
    factors = torch.empty(2, n, channels, device=x.device)
    more, stride = (weight, 0) if added is None else (added, added.stride(0))
    centre, rstd = factors if kept is None else kept
    with _on(x):
        p._channel_sums[(chunks, n, slices)](
            x, more, sums[0], sums[1], positions, channels, chunk, stride,
            ADDED=added is not None, ROWS=p.ROWS, COLUMNS=p.COLUMNS,
        )  # fmt: skip
        p._scale_and_shift[(n, groups)](
            sums[0], sums[1], weight, bias, more, factors[0], factors[1], centre, rstd,
            channels, width, float(positions * width), chunks, stride, eps,
            ADDED=added is not None, KEPT=kept is not None, WIDTH=_power_of_two(width), PARTS=p.PARTS,
        )  # fmt: skip
        out = torch.empty_like(x)
        p._scaled[(-(-positions // p.ROWS), n, slices)](
            x, factors[0], factors[1], out, positions, channels, SILU=silu, ROWS=p.ROWS, COLUMNS=p.COLUMNS
        )
    return out


def group_norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, kept: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x (N, C, H, W), of weight and bias (C,), and of what was added to x (N, C).

    Args:
        dy: of the result. kept: by `group_norm` of the same x, which must be channels last.
    """
    p = _programs()
    dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
    n, channels, positions, width, chunk, chunks, slices = _cut(x, groups)
    sums = torch.empty(3, n, chunks, channels, device=x.device)
    totals = torch.empty(5, n, channels, device=x.device)
    with _on(x):
        p._gradient_sums[(chunks, n, slices)](
            x, dy, weight, bias, kept[0], kept[1], sums, positions, channels, chunk,
            SILU=silu, ROWS=p.ROWS, COLUMNS=p.COLUMNS,
        )  # fmt: skip
        p._gradient_factors[(n, groups)](
            sums, weight, kept[1], totals, channels, width, float(positions), chunks,
            WIDTH=_power_of_two(width), PARTS=p.PARTS,
        )  # fmt: skip
        dx = torch.empty_like(x)
        p._gradient[(-(-positions // p.ROWS), n, slices)](
            x, dy, weight, bias, kept[0], kept[1], totals[2], totals[3], dx, positions, channels,
            SILU=silu, ROWS=p.ROWS, COLUMNS=p.COLUMNS,
        )  # fmt: skip
    of_bias, of_weight = totals[:2].sum(dim=1)
    return dx, of_weight, of_bias, totals[4]


def _cut(x: Tensor, groups: int) -> tuple[int, int, int, int, int, int, int]:
    """Samples, channels, positions, channels of a group, positions of a chunk, chunks, and slices of the channels."""
    p = _programs()
    n, channels, height, width = x.shape
    positions = height * width
    chunk = max(2 * p.ROWS, -(-positions // (p.CHUNKS * p.ROWS)) * p.ROWS)
    return n, channels, positions, channels // groups, chunk, -(-positions // chunk), -(-channels // p.COLUMNS)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The layer norm of x (..., C) over its last dimension."""
    x = x.contiguous()
    channels, out = x.shape[-1], torch.empty_like(x)
    with _on(x):
        _programs().layer_norm[(x.numel() // channels,)](
            x, weight, bias, out, channels, eps, COLUMNS=_power_of_two(channels)
        )
    return out


def gated(x: Tensor) -> Tensor:
    """x (..., 2 n), values before gates -> the values times the GELU of the gates, (..., n)."""
    p, x = _programs(), x.contiguous()
    inner = x.shape[-1] // 2
    out = x.new_empty(*x.shape[:-1], inner)
    with _on(x):
        p.gated[(x.numel() // (2 * inner), -(-inner // p.FLAT))](x, out, inner, FLAT=p.FLAT)
    return out


def add_(h: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """h + x + bias, of pictures (N, C, H, W) and a number for each channel (C,), in the place of h."""
    p = _programs()
    if not h.is_contiguous(memory_format=torch.channels_last):
        return h.add_(x).add_(bias[:, None, None])
    x = x.contiguous(memory_format=torch.channels_last)
    with _on(h):
        channels = h.shape[1]
        positions = h.numel() // channels
        p.sum_of_three[(-(-positions // p.ROWS), -(-channels // p.COLUMNS))](
            h, x, bias, positions, channels, ROWS=p.ROWS, COLUMNS=p.COLUMNS
        )
    return h


def _on(x: Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()


def _power_of_two(n: int) -> int:
    """The first from 16 on that is n or more."""
    return max(16, 1 << (n - 1).bit_length())
