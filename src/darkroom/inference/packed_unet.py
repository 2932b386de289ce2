"""The U-Net in a form for drawing: the same function of the same weights, in fewer and quicker operations.

Queries, keys and values are one product, and so are the two halves of a gated layer. A batch has one time, which on
CPUs is embedded once; what it adds to a ResNet block is part of the bias of the block's convolution, and on CUDA of the
norm behind it. For the rest see `frozen_layers`.
"""

from collections.abc import Callable, Iterator
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.nn.denoiser.base import Context, DenoisingNetwork
from darkroom.nn.denoiser.unet import UNet2DConditionModel, UNetConfig
from darkroom.nn.layers.attention import (
    GEGLU,
    Attention,
    BasicTransformerBlock,
    KeysValues,
    Transformer2DModel,
    attend,
)
from darkroom.nn.layers.blocks import Downsample2D, ResnetBlock2D, Upsample2D
from darkroom.nn.layers.packed import Layer, Layers, linear

FUSED_BELOW = 64  # batch times heads below which bfloat16 attention is quicker in PyTorch's fused kernel

Block = Callable[[Tensor, KeysValues | None], Tensor]  # (tokens, context) -> tokens
TimedLayer = Callable[[Tensor, Tensor, Iterator[KeysValues | None]], Tensor]  # (x, time, contexts) -> x
Level = tuple[list[TimedLayer], list[Layer]]  # its layers, and what halves or doubles the sides behind them


class FrozenUNet(DenoisingNetwork):
    """A UNet2DConditionModel that is no longer trained.

    It agrees with the network it is made of up to rounding, and takes that network's weights over one by one: none is
    in memory twice, and the network itself is of no use afterwards.

    Args:
        unet: its convolutions and linear layers in float32, or in bfloat16, in which this then computes.
    """

    config: UNetConfig

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.config = unet.config
        self._unet = unet  # keeps what is not replaced: embeddings of time and class, keys and values of the context
        self._layers = Layers(unet.conv_in.weight.device, unet.conv_in.weight.dtype)
        self._projections: list[tuple[Tensor, Tensor]] = []  # of the time to each ResNet block
        side = self.config.sample_size or UNetConfig.sample_size or 1  # kernels are laid out for it, and serve others
        self._conv_in = self._layers.conv(unet.conv_in, side)
        self._down: list[Level] = []
        for block in unet.down_blocks:
            layers = self._level(block, side)
            halve = self._samplers(block, "downsamplers", side)
            self._down.append((layers, halve))
            side = -(-side // 2) if halve else side
        self._mid: Level = self._level(unet.mid_block, side), []
        self._up: list[Level] = []
        for block in unet.up_blocks:
            self._up.append((self._level(block, side), self._samplers(block, "upsamplers", 2 * side)))
            side = 2 * side if self._up[-1][1] else side
        self._norm_out = self._layers.group_norm(unet.conv_norm_out, silu=True)
        self._conv_out = self._layers.conv(unet.conv_out, side)
        weights, biases = zip(*self._projections, strict=True)
        self._project = linear(torch.cat(weights), torch.cat(biases))
        self._projections = []

    @property
    def multiple(self) -> int:
        """See UNet2DConditionModel."""
        return self._unet.multiple

    def prepare_context(self, encoder_hidden_states: Tensor) -> Context:
        """See UNet2DConditionModel."""
        return self._unet.prepare_context(encoder_hidden_states)

    def forward(
        self, sample: Tensor, timestep: Tensor, context: Context | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """One prediction, see UNet2DConditionModel.forward; autocast does not apply to it."""
        self._unet.check_condition(context, class_labels)
        with torch.no_grad(), torch.autocast(sample.device.type, enabled=False):
            return self._predict(sample, timestep, context, class_labels)

    def _predict(
        self, sample: Tensor, timestep: Tensor, context: Context | None, class_labels: Tensor | None
    ) -> Tensor:
        dtype = self._layers.dtype
        # Where the processor need not wait for the device to tell.
        if class_labels is None and timestep.device.type == "cpu" and bool((timestep == timestep[0]).all()):
            timestep = timestep[:1]
        time = self._project(self._unet.time_features(timestep, class_labels, dtype).to(dtype))
        keys_values: Iterator[KeysValues | None] = repeat(None) if context is None else iter(context)
        x = self._conv_in(sample.to(dtype).contiguous(memory_format=torch.channels_last))
        skips = [x]
        for layers, downsample in self._down:
            for layer in layers:
                x = layer(x, time, keys_values)
                skips.append(x)
            for conv in downsample:
                x = conv(x)
                skips.append(x)
        for layer in self._mid[0]:
            x = layer(x, time, keys_values)
        for layers, upsample in self._up:
            for layer in layers:
                x = layer(torch.cat((x, skips.pop()), dim=1), time, keys_values)
            for conv in upsample:
                x = conv(F.interpolate(x, size=skips[-1].shape[2:], mode="nearest"))
        return self._conv_out(self._norm_out(x, None))

    def _level(self, block: nn.Module, side: int) -> list[TimedLayer]:
        """The ResNet blocks of a level, each with the transformer behind it, if it has one."""
        resnets, attentions = _modules(block, "resnets"), _modules(block, "attentions")
        return [
            self._layer(resnet, attentions[i] if i < len(attentions) else None, side)
            for i, resnet in enumerate(resnets)
        ]

    def _samplers(self, block: nn.Module, name: str, side: int) -> list[Layer]:
        samplers = [one for one in _modules(block, name) if isinstance(one, Downsample2D | Upsample2D)]
        assert len(samplers) == len(_modules(block, name))
        return [self._layers.conv(sampler.conv, side) for sampler in samplers]

    def _layer(self, block: nn.Module, behind: nn.Module | None, side: int) -> TimedLayer:
        assert isinstance(block, ResnetBlock2D)
        assert block.time_emb_proj is not None
        make = self._layers
        norm1, norm2 = (make.group_norm(norm, silu=True) for norm in (block.norm1, block.norm2))
        bias, fused = block.conv1.bias, make.fused
        conv1, residual = make.convolution(block.conv1, side), make.residual(block.conv2, block.conv_shortcut, side)
        weight, time_bias = make.parameters(block.time_emb_proj)
        assert bias is not None
        assert time_bias is not None
        first = sum(len(w) for w, _ in self._projections)
        rows = slice(first, first + len(weight))  # of the projection of the time
        self._projections.append((weight, time_bias + bias.data))
        transformer = None if behind is None else _transformer(behind, make)

        def run(x: Tensor, time: Tensor, context: Iterator[KeysValues | None]) -> Tensor:
            h = norm1(x, None)
            if len(time) == 1 and not fused:
                h = norm2(conv1(h, time[0, rows]), None)
            else:
                h = norm2(conv1(h, None), time[:, rows])
            h = residual(h, x)
            return h if transformer is None else transformer(h, context)

        return run


def _modules(block: nn.Module, name: str) -> list[nn.Module]:
    found = getattr(block, name)
    assert isinstance(found, nn.ModuleList)
    return list(found)


def _transformer(module: nn.Module, make: Layers) -> Callable[[Tensor, Iterator[KeysValues | None]], Tensor]:
    assert isinstance(module, Transformer2DModel)
    norm = make.group_norm(module.norm, silu=False)
    inside, outside = (make.projection(m) for m in (module.proj_in, module.proj_out))
    blocks = [_block(block, make) for block in module.transformer_blocks]

    def run(x: Tensor, context: Iterator[KeysValues | None]) -> Tensor:
        n, c, h, w = x.shape
        tokens = inside(norm(x, None).permute(0, 2, 3, 1).reshape(n, h * w, c))
        for block in blocks:
            tokens = block(tokens, next(context))
        return outside(tokens).view(n, h, w, c).permute(0, 3, 1, 2).add_(x)

    return run


def _block(module: nn.Module, make: Layers) -> Block:
    assert isinstance(module, BasicTransformerBlock)
    norm1, norm2, norm3 = (make.layer_norm(norm) for norm in (module.norm1, module.norm2, module.norm3))
    gated, out = module.ff.net[0], module.ff.net[2]
    assert isinstance(gated, GEGLU)
    assert isinstance(out, nn.Linear)
    widen, between, narrow = make.linear(gated.proj), make.gated(), make.linear(out)
    to_itself, to_context = _self_attention(module.attn1, make), _attention(module.attn2, make)

    def run(x: Tensor, context: KeysValues | None) -> Tensor:
        x = to_itself(norm1(x)).add_(x)
        x = to_context(norm2(x), context).add_(x)
        return narrow(between(widen(norm3(x)))).add_(x)

    return run


def _self_attention(module: Attention, make: Layers) -> Layer:
    layers = (module.to_q, module.to_k, module.to_v)
    weights, biases = zip(*(make.parameters(layer) for layer in layers), strict=True)
    assert biases == (None, None, None)
    product, out, heads = linear(torch.cat(weights), None), make.linear(module.out_projection), module.heads

    def run(x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = product(x).view(n, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return out(_attend(q, (k, v)))

    return run


def _attention(module: Attention, make: Layers) -> Block:
    """Attention to the keys and values given; its own where there are none."""
    to_q, out, heads = make.linear(module.to_q), make.linear(module.out_projection), module.heads

    def run(x: Tensor, context: KeysValues | None) -> Tensor:
        q = to_q(x).view(*x.shape[:2], heads, -1).transpose(1, 2)
        return out(_attend(q, module.keys_values(x) if context is None else context))

    return run


def _attend(q: Tensor, keys_values: KeysValues) -> Tensor:
    if q.dtype == torch.bfloat16 and q.shape[0] * q.shape[1] < FUSED_BELOW:
        return F.scaled_dot_product_attention(q, *keys_values).transpose(1, 2).flatten(2)
    return attend(q, keys_values)
