"""Three small U-Nets that estimate scores: skips concatenated, added, or added with attention to a class.

Shapes: N samples of c channels and side s; stages i of Ci channels and side si: s0 = s - 2, s(i + 1) = (si - 1) // 2.

sides   28 ─ 26 ─ 12 ─ 5 ─ 2 ─ 5 ─ 12 ─ 26 ─ 28
widths   1   32   64  128 256 128  64   32    1

Convolutions without padding, each normalised and told the time, as in the score networks for MNIST that go with Song et
al. 2021, "Score-based generative modeling through stochastic differential equations" (arXiv:2011.13456). The output is
as the last layer makes it; what it stands for, and any division by the noise's scale, is the prediction's business.
"""

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config.denoisers import DenoiserSizes, ScoreUNetConfig
from darkroom.nn.denoiser.base import Context, DenoisingNetwork
from darkroom.nn.layers.attention import attend

WIDTHS = (32, 64, 128, 256)
STRIDES = (1, 2, 2, 2)
GROUPS = (4, 32, 32, 32)  # of the norms on the way down; on the way up it is the last throughout
FREQUENCIES, SPREAD = 128, 30.0  # of the Fourier features: how many, and the standard deviation they are drawn with
TIME_DIM = 2 * FREQUENCIES
TIME_SCALE = 1000  # the times a network is told are 1000 t, with t in [0, 1]
CLASS_DIM = 256


class ScoreUNet(DenoisingNetwork):
    """Noisy pictures and a time, of one variant a class too, -> a prediction of their shape.

    The time is told as sines and cosines of fixed random frequencies (Tancik et al. 2020, "Fourier features"). The null
    class is a token of zeros, which no attention without biases can see.
    """

    config: ScoreUNetConfig

    def __init__(self, config: ScoreUNetConfig, sizes: DenoiserSizes) -> None:
        super().__init__(config, sizes)
        channels, classes = sizes.in_channels, sizes.num_classes
        self.frequencies = nn.Parameter(SPREAD * torch.randn(FREQUENCIES), requires_grad=False)
        self.time_embedding = nn.Linear(TIME_DIM, TIME_DIM)
        self.down = nn.ModuleList(
            _Stage(nn.Conv2d(before, width, 3, stride, bias=False), width, groups)
            for before, width, stride, groups in zip((channels, *WIDTHS), WIDTHS, STRIDES, GROUPS, strict=False)
        )
        first, second, third, last = WIDTHS
        joined = 2 if config.variant == "concat" else 1
        self.up = nn.ModuleList(
            _Stage(
                nn.ConvTranspose2d(before, width, 3, stride=2, output_padding=padding, bias=False), width, GROUPS[-1]
            )
            for before, width, padding in ((last, third, 0), (joined * third, second, 1), (joined * second, first, 1))
        )
        self.conv_out = nn.ConvTranspose2d(joined * first, channels, 3)
        for weight in self.conv_out.parameters():  # else the first epoch is spent on unlearning what it says at random
            nn.init.zeros_(weight)
        self.class_embedding = None if classes is None else nn.Embedding(classes, CLASS_DIM)
        attending = () if classes is None else (third, last)
        self.transformers = nn.ModuleList(_SpatialTransformer(width) for width in attending)

    def stored(self) -> Self:
        """Itself: with so few channels in a group, PyTorch's norms of channels-last pictures are slow on CPUs."""
        return self

    def forward(
        self, sample: Tensor, timestep: Tensor, context: Context | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """See `DenoisingNetwork.forward`; the time counts in [0, 1000]."""
        self._check(sample, context, class_labels)
        time = F.silu(self.time_embedding(self._features(timestep).to(sample.dtype)))  # (N, 256)
        # fmt: off
        token = None if class_labels is None else self._token(class_labels)  # (N, 1, 256)
        skips: list[Tensor] = []
        x, attending = sample, len(self.down) - len(self.transformers)       # (N, c, s, s)
        for i, stage in enumerate(self.down):                                # i = 0 … 3
            x = stage(x, time)                                               # (N, Ci, si, si)
            if i >= attending:
                x = self.transformers[i - attending](x, token)
            skips.append(x)
        x = skips.pop()
        for stage in self.up:                                                # i = 2, 1, 0
            x = self._joined(stage(x, time), skips.pop())                    # (N, Ci, si, si), of concat 2 * Ci
        out: Tensor = self.conv_out(x)                                       # (N, c, s, s)
        return out
        # fmt: on

    def _features(self, timestep: Tensor) -> Tensor:
        """(N,) -> (N, 256) float32."""
        angle = 2 * math.pi * (timestep.float() / TIME_SCALE)[:, None] * self.frequencies.float()
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    def _token(self, class_labels: Tensor) -> Tensor:
        """Ids (N,) -> one token (N, 1, 256); of the null class zeros."""
        assert self.class_embedding is not None
        known = class_labels < self.class_embedding.num_embeddings
        token: Tensor = self.class_embedding(class_labels.where(known, 0)) * known[:, None]
        return token[:, None]

    def _joined(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat((x, skip), dim=1) if self.config.variant == "concat" else x + skip


class _Stage(nn.Module):
    """SiLU(norm(conv(x) + time)), the time as one number a channel."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, channels: int, groups: int) -> None:
        super().__init__()
        self.conv = conv
        self.time = nn.Linear(TIME_DIM, channels)
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return F.silu(self.norm(self.conv(x) + self.time(time)[:, :, None, None]))


class _Attention(nn.Module):
    """One head over tokens (N, T, dim), without biases and without a projection of what it gathers."""

    def __init__(self, dim: int, context_dim: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim, dim, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(N, T, dim), (N, L, context_dim) -> (N, T, dim)."""
        keys_values = self.to_k(context)[:, None], self.to_v(context)[:, None]
        return attend(self.to_q(x)[:, None], keys_values)


class _SpatialTransformer(nn.Module):
    """Attention between the positions of (N, C, H, W), to the class, and a feed-forward layer; added to its input.

    Each of the three is normalised before and added to its own input, so what comes in goes out twice over.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = _Attention(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = _Attention(channels, CLASS_DIM)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = nn.Sequential(nn.Linear(channels, 3 * channels), nn.GELU(), nn.Linear(3 * channels, channels))

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # (N, H * W, C)
        normed = self.norm1(tokens)
        tokens = tokens + self.attn1(normed, normed)
        tokens = tokens + self.attn2(self.norm2(tokens), token)
        tokens = tokens + self.ff(self.norm3(tokens))
        out: Tensor = x + tokens.transpose(1, 2).reshape(x.shape)
        return out
