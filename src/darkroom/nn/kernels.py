"""What frozen networks compute between their products, each in one pass over memory: for CUDA, in 16 bits.

PyTorch's group norm for CUDA turns a channels-last picture around and back, and the activation behind it, the time
before it and the bias of a convolution each go through memory once more. Here none does. Statistics are float32.

Only where `usable`: elsewhere the networks do without. Inputs are 16-bit; weights and biases of any type.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

log = logging.getLogger("darkroom")

TOLERANCE = 0.05  # by which the trial may differ from PyTorch: of numbers up to 4, rounded to 8 bits


@cache
def usable(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine can build and run these programs for tensors of `dtype` on `device`, and they are right."""
    if device.type != "cuda" or dtype == torch.float32:
        return False
    try:
        right = _trial(device, dtype)
        reason = "they gave other numbers than PyTorch"
    except Exception as error:  # no compiler, no Triton, an older GPU: all end in one slower way
        right, reason = False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not right:
        log.warning("drawing and encoding without fused kernels, which is slower: %s", reason)
    return right


def _trial(device: torch.device, dtype: torch.dtype) -> bool:
    ramp = torch.linspace(-2, 2, 2 * 40 * 8 * 8, device=device)
    x = ramp[torch.arange(len(ramp), device=device) * 7919 % len(ramp)].view(2, 40, 8, 8)
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.linspace(0.5, 1.5, 40, device=device), torch.linspace(-1, 1, 40, device=device)
    wanted = F.silu(F.group_norm(x.float() + bias[:, None, None], 8, weight, bias, 1e-5))
    found = group_norm(x, weight, bias, 8, 1e-5, silu=True, added=bias.expand(2, -1))
    tokens = x.permute(0, 2, 3, 1).reshape(128, 40)
    pairs = [
        (found, wanted),
        (layer_norm(tokens, weight, bias, 1e-5), F.layer_norm(tokens.float(), (40,), weight, bias, 1e-5)),
        (gated(tokens), tokens[:, :20].float() * F.gelu(tokens[:, 20:].float())),
        (add_(x.clone(), x, bias), 2 * x.float() + bias[:, None, None]),
    ]
    return all(bool(((ours.float() - theirs).abs() <= TOLERANCE).all()) for ours, theirs in pairs)


@cache
def _programs() -> Any:
    from darkroom.nn import triton_kernels

    return triton_kernels


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, added: Tensor | None = None
) -> Tensor:
    """The group norm of x (N, C, H, W), or of x + added with `added` (N, C), and SiLU of that; channels last."""
    p = _programs()
    x = x.contiguous(memory_format=torch.channels_last)
    n, channels, height, width = x.shape
    positions, width = height * width, channels // groups
    chunk = max(2 * p.ROWS, -(-positions // (p.CHUNKS * p.ROWS)) * p.ROWS)
    chunks, parts = -(-positions // chunk), -(-channels // p.COLUMNS)
    sums = torch.empty(2, n, chunks, channels, device=x.device)
    factors = torch.empty(2, n, channels, device=x.device)
    more, stride = (weight, 0) if added is None else (added, added.stride(0))
    with _on(x):
        p.channel_sums[(chunks, n, parts)](
            x, more, sums[0], sums[1], positions, channels, chunk, stride,
            ADDED=added is not None, ROWS=p.ROWS, COLUMNS=p.COLUMNS,
        )  # fmt: skip
        p.scale_and_shift[(n, groups)](
            sums[0], sums[1], weight, bias, more, factors[0], factors[1], channels, width, float(positions * width),
            chunks, stride, eps,
            ADDED=added is not None, WIDTH=_power_of_two(width), CHUNKS=p.CHUNKS,
        )  # fmt: skip
        out = torch.empty_like(x)
        p.scaled[(-(-positions // p.ROWS), n, parts)](
            x, factors[0], factors[1], out, positions, channels, SILU=silu, ROWS=p.ROWS, COLUMNS=p.COLUMNS
        )
    return out


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
