"""Attention over the positions of a picture, and from the picture to the words; diffusers' module names."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.core.errors import DarkroomError
from darkroom.nn.layers.fused_norm import layer_normed, normed
from darkroom.nn.layers.lora import LoRALinear

KeysValues = tuple[Tensor, Tensor]  # each (N, heads, tokens, head_dim)

EXPLICIT_UP_TO = 512 * 512  # entries of an attention matrix that may be written out on the CPU


def attend(q: Tensor, keys_values: KeysValues, causal: bool = False) -> Tensor:
    """Softmax attention (Vaswani et al. 2017, equation 1): q (N, heads, T, d) -> (N, T, heads * d).

    The equation is written out for small pictures on the CPU, where the backward pass of PyTorch's fused kernel takes
    four to eight times as long in bfloat16 (64 tokens, torch 2.13). causal: token i sees tokens 0 to i only.
    """
    k, v = keys_values
    tokens, context = q.shape[2], k.shape[2]
    if q.device.type != "cpu" or tokens * context > EXPLICIT_UP_TO:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    else:
        logits = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)  # (N, heads, T, L)
        if causal:
            logits = logits + torch.full((tokens, context), -torch.inf, dtype=logits.dtype).triu(1)
        out = logits.softmax(dim=3) @ v
    return out.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention of tokens (N, T, dim) to themselves or to a context (N, L, context_dim).

    Keys and values are a method of their own, so that those of a constant context are computed once for many calls.
    """

    def __init__(self, dim: int, heads: int, context_dim: int, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_k = nn.Linear(context_dim, dim, bias=bias)
        self.to_v = nn.Linear(context_dim, dim, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def keys_values(self, context: Tensor) -> KeysValues:
        """(N, L, context_dim) -> keys and values, each (N, heads, L, head_dim)."""
        return self._split(self.to_k(context)), self._split(self.to_v(context))

    def forward(self, x: Tensor, keys_values: KeysValues | None = None) -> Tensor:
        """(N, T, dim) -> (N, T, dim); without keys and values the tokens attend to each other."""
        if keys_values is None:
            keys_values = self.keys_values(x)
        out: Tensor = self.to_out[0](attend(self._split(self.to_q(x)), keys_values))
        return out

    @property
    def out_projection(self) -> nn.Linear:
        """The last layer."""
        layer = self.to_out[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class SpatialAttention(Attention):
    """The VAE's: group-normalised, one head over all channels, with a residual connection around it."""

    def __init__(self, channels: int, groups: int, eps: float) -> None:
        super().__init__(channels, heads=1, context_dim=channels, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, eps)

    def forward(self, x: Tensor, keys_values: KeysValues | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        tokens = (
            normed(self.group_norm, x, activate=False).flatten(2).transpose(1, 2)
        )  # (N, H * W, C), a view where x is channels_last
        return x + super().forward(tokens, keys_values).transpose(1, 2).reshape(x.shape)


class GEGLU(nn.Module):
    """Gated GELU (Shazeer 2020, "GLU variants improve Transformer", equation 6): (..., dim) -> (..., inner)."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.proj, LoRALinear):
            value, gate = self.proj(x).chunk(2, dim=-1)
            gated: Tensor = value * F.gelu(gate)
            return gated
        # Two products with halves of the weight rather than halves of one product: their gradients need no joining.
        (w_value, w_gate), (b_value, b_gate) = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        return F.linear(x, w_value, b_value) * F.gelu(F.linear(x, w_gate, b_gate))


class FeedForward(nn.Module):
    """(..., dim) -> (..., dim) through four times the width; the identity holds the place of diffusers' dropout."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class BasicTransformerBlock(nn.Module):
    """Self-attention, attention to the context, feed-forward, each normalised before and added to its input."""

    def __init__(self, dim: int, heads: int, context_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads, context_dim=dim)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, heads, context_dim=context_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, x: Tensor, context: KeysValues | None) -> Tensor:
        """(N, T, dim) -> (N, T, dim); context: keys and values for `attn2`, None for a second self-attention."""
        x = x + self.attn1(layer_normed(self.norm1, x))
        x = x + self.attn2(layer_normed(self.norm2, x), context)
        out: Tensor = x + self.ff(layer_normed(self.norm3, x))
        return out


class Transformer2DModel(nn.Module):
    """Transformer blocks over the H * W positions of a feature map, added to it.

    Args:
        context_dim: width of the context; `channels` where the picture attends to itself instead.
        use_linear_projection: linear projections in and out (SD 2.x) in place of 1x1 convolutions (SD 1.x).
    """

    def __init__(
        self, channels: int, heads: int, context_dim: int, layers: int, groups: int, use_linear_projection: bool
    ) -> None:
        super().__init__()
        self.use_linear_projection = use_linear_projection
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = self._projection(channels)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(channels, heads, context_dim) for _ in range(layers)
        )
        self.proj_out = self._projection(channels)

    def take(self, context: Iterator[KeysValues | None]) -> list[KeysValues | None]:
        """The next keys and values of `context`, one for each block."""
        return [_next(context) for _ in self.transformer_blocks]

    def _projection(self, channels: int) -> nn.Conv2d | nn.Linear:
        return nn.Linear(channels, channels) if self.use_linear_projection else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Iterator[KeysValues | None]) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W); each block takes the next keys and values of `context`."""
        h = normed(self.norm, x, activate=False)
        if self.use_linear_projection:
            h = self.proj_in(h.flatten(2).transpose(1, 2))
        else:
            h = self.proj_in(h).flatten(2).transpose(1, 2)  # (N, H * W, C), a view where x is channels_last
        for block in self.transformer_blocks:
            h = block(h, _next(context))
        if self.use_linear_projection:
            h = self.proj_out(h).transpose(1, 2).reshape(x.shape)
        else:
            h = self.proj_out(h.transpose(1, 2).reshape(x.shape))
        out: Tensor = x + h
        return out


def _next(context: Iterator[KeysValues | None]) -> KeysValues | None:
    try:
        return next(context)
    except StopIteration:
        raise DarkroomError(
            "the context holds too few keys and values: make it by this network's prepare_context"
        ) from None
