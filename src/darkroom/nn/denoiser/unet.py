"""The conditional U-Net of Stable Diffusion (Rombach et al. 2022, arXiv:2112.10752), diffusers' `UNet2DConditionModel`.

conv_in ─ down 0 ─ down 1 ─ … ─ mid ─ … ─ up 1 ─ up 0 ─ conv_out
            └────────┴─── skips ─────────┴──────┘

A level is a row of ResNet blocks; in a CrossAttn level each is followed by a transformer, and so is the middle.

Shapes: N samples; c, h, w channels and sides of the latents; levels 0 … L of Ci channels.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from darkroom.config.denoisers import DenoiserSizes, UNet2DConditionConfig
from darkroom.core.errors import DarkroomError
from darkroom.nn.denoiser.base import Context, DenoisingNetwork
from darkroom.nn.layers.attention import BasicTransformerBlock, KeysValues, Transformer2DModel
from darkroom.nn.layers.blocks import (
    Downsample2D,
    ResnetBlock2D,
    TimestepEmbedding,
    Upsample2D,
    timestep_embedding,
)
from darkroom.nn.layers.fused_norm import normed
from darkroom.nn.layers.recompute import Recomputing

NORM_EPS = 1e-5  # of every group norm but those of the transformers


class _Level(Recomputing):
    """What the blocks of all levels share: ResNet blocks, each followed by its transformer where the level has them."""

    def __init__(
        self,
        in_channels: list[int],
        channels: int,
        c: UNet2DConditionConfig,
        transformer: Callable[[], Transformer2DModel] | None,
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([transformer() for _ in in_channels] if transformer else [])
        self.resnets = nn.ModuleList(
            ResnetBlock2D(n, channels, 4 * c.block_out_channels[0], c.norm_num_groups, NORM_EPS) for n in in_channels
        )

    def _layer(self, i: int, inputs: Sequence[Tensor], temb: Tensor, context: Iterator[KeysValues | None]) -> Tensor:
        """ResNet block i and its transformer on `inputs` (N, C_k, H, W), which follow each other in the channels."""
        transformer = cast(Transformer2DModel, self.attentions[i]) if len(self.attentions) else None
        # Taken here, once: a layer that is computed again must not take the next ones.
        taken = [] if transformer is None else transformer.take(context)

        def layer(temb: Tensor, *inputs: Tensor) -> Tensor:
            x: Tensor = self.resnets[i](cat(inputs, dim=1) if len(inputs) > 1 else inputs[0], temb)
            return x if transformer is None else transformer(x, iter(taken))

        return self.computed(layer, temb, *inputs)


class _DownBlock(_Level):
    def __init__(
        self,
        in_channels: list[int],
        channels: int,
        c: UNet2DConditionConfig,
        transformer: Callable[[], Transformer2DModel] | None,
        downsample: bool,
    ) -> None:
        super().__init__(in_channels, channels, c, transformer)
        self.downsamplers = nn.ModuleList([Downsample2D(channels)] if downsample else [])

    def forward(self, x: Tensor, temb: Tensor, context: Iterator[KeysValues | None], skips: list[Tensor]) -> Tensor:
        """(N, C, H, W) -> (N, C', H / 2, W / 2); leaves every intermediate result in `skips`."""
        for i in range(len(self.resnets)):
            x = self._layer(i, [x], temb, context)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return x


class _UpBlock(_Level):
    def __init__(
        self,
        in_channels: list[int],
        channels: int,
        c: UNet2DConditionConfig,
        transformer: Callable[[], Transformer2DModel] | None,
        upsample: bool,
    ) -> None:
        super().__init__(in_channels, channels, c, transformer)
        self.upsamplers = nn.ModuleList([Upsample2D(channels)] if upsample else [])

    def forward(self, x: Tensor, temb: Tensor, context: Iterator[KeysValues | None], skips: list[Tensor]) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W'), to the sides of the next skip; takes its share of `skips` off their end."""
        for i in range(len(self.resnets)):
            x = self._layer(i, [x, skips.pop()], temb, context)
        for upsample in self.upsamplers:
            x = upsample(x, skips[-1].shape[2:])
        return x


class _MidBlock(Recomputing):
    def __init__(self, channels: int, c: UNet2DConditionConfig, transformer: Callable[[], Transformer2DModel]) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([transformer()])
        self.resnets = nn.ModuleList(
            ResnetBlock2D(channels, channels, 4 * c.block_out_channels[0], c.norm_num_groups, NORM_EPS)
            for _ in range(2)
        )

    def forward(self, x: Tensor, temb: Tensor, context: Iterator[KeysValues | None]) -> Tensor:
        transformer = cast(Transformer2DModel, self.attentions[0])
        taken = transformer.take(context)

        def first(x: Tensor, temb: Tensor) -> Tensor:
            out: Tensor = transformer(self.resnets[0](x, temb), iter(taken))
            return out

        return self.computed(self.resnets[1], self.computed(first, x, temb), temb)


class UNet2DConditionModel(DenoisingNetwork):
    """Noisy latents, a timestep and a condition -> a prediction of their shape (of what, is not its business)."""

    config: UNet2DConditionConfig

    def __init__(self, config: UNet2DConditionConfig, sizes: DenoiserSizes) -> None:
        super().__init__(config, sizes)
        c = config
        widths, last = c.block_out_channels, len(c.block_out_channels) - 1
        temb_dim = 4 * widths[0]
        self.conv_in = nn.Conv2d(sizes.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], temb_dim)
        classes = sizes.num_classes
        self.class_embedding = None if classes is None else nn.Embedding(classes + 1, temb_dim)  # the null class too

        self.down_blocks = nn.ModuleList()
        skips = [widths[0]]  # channels of each skip, in the order they are made
        for i, down in enumerate(c.down_block_types):
            inputs = [widths[max(i - 1, 0)]] + [widths[i]] * (c.layers_per_block - 1)
            transformer = self._transformer(i) if "CrossAttn" in down else None
            self.down_blocks.append(_DownBlock(inputs, widths[i], c, transformer, downsample=i < last))
            skips += [widths[i]] * (c.layers_per_block + (i < last))
        self.mid_block = _MidBlock(widths[-1], c, self._transformer(last))
        self.up_blocks = nn.ModuleList()
        below = widths[-1]
        for i, up in zip(range(last, -1, -1), c.up_block_types, strict=True):
            inputs = [(below if j == 0 else widths[i]) + skips.pop() for j in range(c.layers_per_block + 1)]
            transformer = self._transformer(i) if "CrossAttn" in up else None
            self.up_blocks.append(_UpBlock(inputs, widths[i], c, transformer, upsample=i > 0))
            below = widths[i]

        self.conv_norm_out = nn.GroupNorm(c.norm_num_groups, widths[0], NORM_EPS)
        self.conv_out = nn.Conv2d(widths[0], sizes.in_channels, 3, padding=1)
        if self.class_embedding is not None:  # the classes must not drown the time they are added to
            nn.init.normal_(self.class_embedding.weight, std=0.02)

    def _transformer(self, level: int) -> Callable[[], Transformer2DModel]:
        c = self.config
        width = c.block_out_channels[level]
        context_dim = self.sizes.cross_attention_dim or width
        heads, depth = c.num_attention_heads[level], c.transformer_layers_per_block[level]
        return lambda: Transformer2DModel(width, heads, context_dim, depth, c.norm_num_groups, c.use_linear_projection)

    def prepare_context(self, encoder_hidden_states: Tensor) -> Context:
        """The keys and values of every cross-attention, in the order in which `forward` uses them.

        Args:
            encoder_hidden_states: (N, L, cross_attention_dim).

        Returns:
            A list of pairs, each (N, heads, L, head_dim); in training, gradients flow through it.

        Raises:
            DarkroomError: the network has no text condition, or one of another width.
        """
        expected, found = self.sizes.cross_attention_dim, encoder_hidden_states.shape[-1]
        if expected is None:
            raise DarkroomError("cross_attention_dim is null: this U-Net takes no text embeddings")
        if expected != found:
            raise DarkroomError(
                f"cross_attention_dim = {expected}, but the text embeddings have width {found}; "
                "use the encoder the U-Net was trained with"
            )
        return [
            module.attn2.keys_values(encoder_hidden_states)
            for module in self.modules()
            if isinstance(module, BasicTransformerBlock)
        ]

    def time_features(self, timestep: Tensor, class_labels: Tensor | None, dtype: torch.dtype) -> Tensor:
        """SiLU of the embedding (N, 4 * width) of the times and classes, which every ResNet block projects."""
        width = self.config.block_out_channels[0]
        emb = timestep_embedding(timestep, width, flip_sin_to_cos=True, freq_shift=0)
        temb: Tensor = self.time_embedding(emb.to(dtype))
        if self.class_embedding is not None:
            temb = temb + self.class_embedding(class_labels)
        return F.silu(temb)

    def forward(
        self, sample: Tensor, timestep: Tensor, context: Context | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """One prediction.

        Args:
            sample: (N, in_channels, h, w), scaled to about unit variance.
            timestep: (N,), on the scale [0, 1000).
            context: from `prepare_context`, of batch N; where the config has a cross_attention_dim, and only there.
            class_labels: (N,) integers up to num_classes, which is the null class; where there are
                classes, and only there.

        Returns:
            (N, in_channels, h, w).

        Raises:
            DarkroomError: a condition is missing, or is one this network does not take.
        """
        self.check_condition(context, class_labels)
        # fmt: off
        temb = self.time_features(timestep, class_labels, sample.dtype)  # (N, 4 * C0)
        keys_values: Iterator[KeysValues | None] = repeat(None) if context is None else iter(context)
        x = self.conv_in(sample)                                         # (N, C0, h, w)
        skips = [x]
        for block in self.down_blocks:                                   # i = 0 … L
            x = block(x, temb, keys_values, skips)                       # (N, Ci, h / 2^(i + 1)); level L keeps h / 2^L
        x = self.mid_block(x, temb, keys_values)                         # (N, CL, h / 2^L, w / 2^L)
        for block in self.up_blocks:                                     # i = L … 0
            x = block(x, temb, keys_values, skips)                       # (N, Ci, h / 2^(i - 1)); level 0 keeps h
        x = normed(self.conv_norm_out, x, activate=True)
        out: Tensor = self.conv_out(x)                                   # (N, c, h, w)
        return out
        # fmt: on
