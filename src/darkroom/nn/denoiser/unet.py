"""The conditional U-Net of Stable Diffusion (Rombach et al. 2022, arXiv:2112.10752), diffusers' `UNet2DConditionModel`.

conv_in ─ down 0 ─ down 1 ─ … ─ mid ─ … ─ up 1 ─ up 0 ─ conv_out
            └────────┴─── skips ─────────┴──────┘

A level is a row of ResNet blocks; in a CrossAttn level each is followed by a transformer, and so is the middle.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from darkroom.core.errors import DarkroomError
from darkroom.nn.denoiser.base import Context, DenoisingNetwork
from darkroom.nn.layers.attention import BasicTransformerBlock, KeysValues, Transformer2DModel
from darkroom.nn.layers.blocks import (
    Downsample2D,
    ResnetBlock2D,
    TimestepEmbedding,
    Upsample2D,
    check_divisible,
    timestep_embedding,
)
from darkroom.nn.layers.fused_norm import normed
from darkroom.nn.layers.recompute import Recomputing

DOWN_BLOCKS = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}  # name -> has transformers
UP_BLOCKS = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a UNet2DConditionModel, in diffusers' words; the defaults are those of Stable Diffusion 1.x.

    sample_size: side of the latents it is made for; the network itself takes any.
    cross_attention_dim: width of the text embeddings. None: no text; the transformers attend to the picture twice,
        which diffusers expresses as the widths of the levels in this place and no `encoder_hidden_states`.
    attention_head_dim: the *number* of heads (diffusers' historical name for it), for all levels or each.
    num_class_embeds: classes, the null class among them, whose embedding is added to the time's. None: no classes.

    Raises:
        DarkroomError: widths that groups or heads do not divide, lists of different lengths, an unknown block type.
    """

    sample_size: int | None = 64
    in_channels: int = 4
    out_channels: int = 4
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    cross_attention_dim: int | None = 768
    attention_head_dim: int | tuple[int, ...] = 8
    transformer_layers_per_block: int | tuple[int, ...] = 1
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    num_class_embeds: int | None = None
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    use_linear_projection: bool = False

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if isinstance(value, list):
                object.__setattr__(self, key, tuple(value))
        levels = len(self.block_out_channels)
        for key in ("down_block_types", "up_block_types", "attention_head_dim", "transformer_layers_per_block"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) != levels:
                raise DarkroomError(f"{key} has {len(value)} entries, block_out_channels {levels}; give one per level")
        for key, known in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
            for name in getattr(self, key):
                if name not in known:
                    raise DarkroomError(f"{key}: unknown block type {name!r}; choose from {', '.join(known)}")
        if levels == 0:
            raise DarkroomError("block_out_channels = [] is empty; give one width per level, such as [64, 128]")
        for i, (width, heads) in enumerate(zip(self.block_out_channels, self.heads, strict=True)):
            check_divisible(f"block_out_channels[{i}]", width, "norm_num_groups", self.norm_num_groups)
            if i == levels - 1 or DOWN_BLOCKS[self.down_block_types[i]] or UP_BLOCKS[self.up_block_types[-1 - i]]:
                check_divisible(f"block_out_channels[{i}]", width, "attention_head_dim", heads)

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each level."""
        return _per_level(self.attention_head_dim, len(self.block_out_channels))

    @property
    def depths(self) -> tuple[int, ...]:
        """Transformer blocks behind each ResNet block of a CrossAttn level."""
        return _per_level(self.transformer_layers_per_block, len(self.block_out_channels))

    def to_diffusers(self) -> dict[str, Any]:
        """The keyword arguments (JSON values) with which diffusers' UNet2DConditionModel builds the same network."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        if self.cross_attention_dim is None:
            values["cross_attention_dim"] = list(self.block_out_channels)
        return {**values, "mid_block_type": "UNetMidBlock2DCrossAttn", "act_fn": "silu"}


def _per_level(value: int | tuple[int, ...], levels: int) -> tuple[int, ...]:
    return (value,) * levels if isinstance(value, int) else value


class _Level(Recomputing):
    """What the blocks of all levels share: ResNet blocks, each followed by its transformer where the level has them."""

    def __init__(
        self, in_channels: list[int], channels: int, c: UNetConfig, transformer: Callable[[], Transformer2DModel] | None
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([transformer() for _ in in_channels] if transformer else [])
        self.resnets = nn.ModuleList(
            ResnetBlock2D(n, channels, 4 * c.block_out_channels[0], c.norm_num_groups, c.norm_eps) for n in in_channels
        )

    def _layer(self, i: int, parts: Sequence[Tensor], temb: Tensor, context: Iterator[KeysValues | None]) -> Tensor:
        """ResNet block i and its transformer on `parts` (N, C_k, H, W), which follow each other in the channels."""
        transformer = cast(Transformer2DModel, self.attentions[i]) if len(self.attentions) else None
        # Taken here, once: a layer that is computed again must not take the next ones.
        taken = [] if transformer is None else transformer.take(context)

        def layer(temb: Tensor, *parts: Tensor) -> Tensor:
            x: Tensor = self.resnets[i](cat(parts, dim=1) if len(parts) > 1 else parts[0], temb)
            return x if transformer is None else transformer(x, iter(taken))

        return self.computed(layer, temb, *parts)


class _DownBlock(_Level):
    def __init__(
        self,
        in_channels: list[int],
        channels: int,
        c: UNetConfig,
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
        c: UNetConfig,
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
    def __init__(self, channels: int, c: UNetConfig, transformer: Callable[[], Transformer2DModel]) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([transformer()])
        self.resnets = nn.ModuleList(
            ResnetBlock2D(channels, channels, 4 * c.block_out_channels[0], c.norm_num_groups, c.norm_eps)
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

    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = c = config
        widths, last = c.block_out_channels, len(c.block_out_channels) - 1
        temb_dim = 4 * widths[0]
        self.conv_in = nn.Conv2d(c.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], temb_dim)
        self.class_embedding = None if c.num_class_embeds is None else nn.Embedding(c.num_class_embeds, temb_dim)

        self.down_blocks = nn.ModuleList()
        skips = [widths[0]]  # channels of each skip, in the order they are made
        for i, name in enumerate(c.down_block_types):
            inputs = [widths[max(i - 1, 0)]] + [widths[i]] * (c.layers_per_block - 1)
            transformer = self._transformer(i) if DOWN_BLOCKS[name] else None
            self.down_blocks.append(_DownBlock(inputs, widths[i], c, transformer, downsample=i < last))
            skips += [widths[i]] * (c.layers_per_block + (i < last))
        self.mid_block = _MidBlock(widths[-1], c, self._transformer(last))
        self.up_blocks = nn.ModuleList()
        below = widths[-1]
        for i, name in zip(range(last, -1, -1), c.up_block_types, strict=True):
            inputs = [(below if j == 0 else widths[i]) + skips.pop() for j in range(c.layers_per_block + 1)]
            transformer = self._transformer(i) if UP_BLOCKS[name] else None
            self.up_blocks.append(_UpBlock(inputs, widths[i], c, transformer, upsample=i > 0))
            below = widths[i]

        self.conv_norm_out = nn.GroupNorm(c.norm_num_groups, widths[0], c.norm_eps)
        self.conv_out = nn.Conv2d(widths[0], c.out_channels, 3, padding=1)
        if self.class_embedding is not None:  # the classes must not drown the time they are added to
            nn.init.normal_(self.class_embedding.weight, std=0.02)

    def _transformer(self, level: int) -> Callable[[], Transformer2DModel]:
        c = self.config
        width = c.block_out_channels[level]
        context_dim = c.cross_attention_dim or width
        return lambda: Transformer2DModel(
            width, c.heads[level], context_dim, c.depths[level], c.norm_num_groups, c.use_linear_projection
        )

    @property
    def takes_text(self) -> bool:
        """Unless it has no cross-attention."""
        return self.config.cross_attention_dim is not None

    @property
    def takes_classes(self) -> bool:
        """Where it has a table of them."""
        return self.class_embedding is not None

    @property
    def multiple(self) -> int:
        """Every level but the first halves the sides."""
        return int(2 ** (len(self.config.block_out_channels) - 1))

    def prepare_context(self, encoder_hidden_states: Tensor) -> Context:
        """The keys and values of every cross-attention, in the order in which `forward` uses them.

        Args:
            encoder_hidden_states: (N, L, cross_attention_dim).

        Returns:
            A list of pairs, each (N, heads, L, head_dim); in training, gradients flow through it.

        Raises:
            DarkroomError: the network has no text condition, or one of another width.
        """
        expected, found = self.config.cross_attention_dim, encoder_hidden_states.shape[-1]
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
        c = self.config
        emb = timestep_embedding(timestep, c.block_out_channels[0], c.flip_sin_to_cos, c.freq_shift)
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
            class_labels: (N,) integers below num_class_embeds; where the config has classes, and only there.

        Returns:
            (N, out_channels, h, w).

        Raises:
            DarkroomError: a condition is missing, or is one this network does not take.
        """
        self.check_condition(context, class_labels)
        temb = self.time_features(timestep, class_labels, sample.dtype)
        keys_values: Iterator[KeysValues | None] = repeat(None) if context is None else iter(context)
        x = self.conv_in(sample)
        skips = [x]
        for block in self.down_blocks:
            x = block(x, temb, keys_values, skips)
        x = self.mid_block(x, temb, keys_values)
        for block in self.up_blocks:
            x = block(x, temb, keys_values, skips)
        out: Tensor = self.conv_out(normed(self.conv_norm_out, x, activate=True))
        return out
