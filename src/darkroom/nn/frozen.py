"""The U-Net in a form for drawing: the same function of the same weights, in fewer and quicker operations on CPUs.

Kernels are laid out once, as oneDNN wants them, where a convolution would do so at every call. Queries, keys and values
are one product, and so are the two halves of a gated layer. A batch has one time, which is embedded once; what it adds
to a ResNet block is part of the bias of the block's convolution.
"""

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.nn.attention import GEGLU, Attention, BasicTransformerBlock, KeysValues, Transformer2DModel, attend
from darkroom.nn.denoising import Context, DenoisingNetwork
from darkroom.nn.layers import Downsample2D, ResnetBlock2D, Upsample2D, silu_
from darkroom.nn.unet import UNet2DConditionModel, UNetConfig

PACKED_LINEAR = 2**17  # entries of a float32 weight from which oneDNN's product is quicker than the BLAS library's
FUSED_BELOW = 64  # batch times heads below which bfloat16 attention is quicker in PyTorch's fused kernel

Layer = Callable[[Tensor], Tensor]
Convolution = Callable[[Tensor, Tensor | None], Tensor]  # (x, bias) -> x
Block = Callable[[Tensor, KeysValues | None], Tensor]  # (tokens, context) -> tokens
TimedLayer = Callable[[Tensor, Tensor, Iterator[KeysValues | None]], Tensor]  # (x, time, contexts) -> x
Level = tuple[list[TimedLayer], list[Layer]]  # its layers, and what halves or doubles the sides behind them


class FrozenUNet(DenoisingNetwork):
    """A UNet2DConditionModel that is no longer trained, on the CPU.

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
        self._dtype = unet.conv_in.weight.dtype
        self._projections: list[tuple[Tensor, Tensor]] = []  # of the time to each ResNet block
        side = self.config.sample_size or UNetConfig.sample_size or 1  # kernels are laid out for it, and serve others
        self._conv_in = _conv(unet.conv_in, side)
        self._down: list[Level] = []
        for block in unet.down_blocks:
            layers = self._layers(block, side)
            halve = _convs(block, "downsamplers", side)
            self._down.append((layers, halve))
            side = -(-side // 2) if halve else side
        self._mid: Level = self._layers(unet.mid_block, side), []
        self._up: list[Level] = []
        for block in unet.up_blocks:
            self._up.append((self._layers(block, side), _convs(block, "upsamplers", 2 * side)))
            side = 2 * side if self._up[-1][1] else side
        self._norm_out, self._conv_out = _group_norm(unet.conv_norm_out), _conv(unet.conv_out, side)
        weights, biases = zip(*self._projections, strict=True)
        self._project = _linear(torch.cat(weights), torch.cat(biases))
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
        """One prediction, see UNet2DConditionModel.forward; autocast has no say in it."""
        self._unet.check_condition(context, class_labels)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return self._predict(sample, timestep, context, class_labels)

    def _predict(
        self, sample: Tensor, timestep: Tensor, context: Context | None, class_labels: Tensor | None
    ) -> Tensor:
        if class_labels is None and bool((timestep == timestep[0]).all()):
            timestep = timestep[:1]
        time = self._project(self._unet.time_features(timestep, class_labels, self._dtype).to(self._dtype))
        keys_values: Iterator[KeysValues | None] = repeat(None) if context is None else iter(context)
        x = self._conv_in(sample.to(self._dtype).contiguous(memory_format=torch.channels_last))
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
        return self._conv_out(silu_(self._norm_out(x)))

    def _layers(self, block: nn.Module, side: int) -> list[TimedLayer]:
        """The ResNet blocks of a level, each with the transformer behind it, if it has one."""
        resnets, attentions = _modules(block, "resnets"), _modules(block, "attentions")
        return [
            self._layer(resnet, attentions[i] if i < len(attentions) else None, side)
            for i, resnet in enumerate(resnets)
        ]

    def _layer(self, block: nn.Module, behind: nn.Module | None, side: int) -> TimedLayer:
        assert isinstance(block, ResnetBlock2D)
        assert block.time_emb_proj is not None
        norm1, norm2 = _group_norm(block.norm1), _group_norm(block.norm2)
        bias = block.conv1.bias
        conv1, conv2 = _convolution(block.conv1, side), _conv(block.conv2, side)
        shortcut = None if block.conv_shortcut is None else _pointwise(block.conv_shortcut)
        weight, time_bias = _taken(block.time_emb_proj)
        assert bias is not None
        assert time_bias is not None
        begin = sum(len(w) for w, _ in self._projections)
        own = slice(begin, begin + len(weight))
        self._projections.append((weight, time_bias + bias.data))
        transformer = None if behind is None else _transformer(behind)

        def run(x: Tensor, time: Tensor, context: Iterator[KeysValues | None]) -> Tensor:
            h = silu_(norm1(x))
            h = conv1(h, time[0, own]) if len(time) == 1 else conv1(h, None).add_(time[:, own, None, None])
            h = conv2(silu_(norm2(h))).add_(x if shortcut is None else shortcut(x))
            return h if transformer is None else transformer(h, context)

        return run


def _modules(block: nn.Module, name: str) -> list[nn.Module]:
    found = getattr(block, name)
    assert isinstance(found, nn.ModuleList)
    return list(found)


def _convs(block: nn.Module, name: str, side: int) -> list[Layer]:
    samplers = _modules(block, name)
    assert all(isinstance(sampler, Downsample2D | Upsample2D) for sampler in samplers)
    return [_conv(sampler.conv, side) for sampler in samplers if isinstance(sampler, Downsample2D | Upsample2D)]


def _taken(layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor | None]:
    """The weight and bias of a layer, which then has none."""
    weight, bias = layer.weight.data, None if layer.bias is None else layer.bias.data
    layer.register_parameter("weight", None)
    layer.register_parameter("bias", None)
    return weight, bias


def _packs(dtype: torch.dtype) -> bool:
    """Whether PyTorch has oneDNN's operators on weights laid out in advance, and this processor the instructions."""
    ops: Any = torch.ops.mkldnn
    if not hasattr(ops, "_convolution_pointwise"):
        return False
    return dtype == torch.float32 or bool(ops._is_mkldnn_bf16_supported())


def _convolution(layer: nn.Conv2d, side: int) -> Convolution:
    """The convolution of inputs of about `side` x `side`, with a bias that is given, or without."""
    (weight, _), stride, ones = _taken(layer), list(layer.stride), [1, 1]
    padding = [(side - 1) // 2 for side in layer.kernel_size]
    if not _packs(weight.dtype):
        plain = weight.contiguous(memory_format=torch.channels_last)
        return lambda x, bias: F.conv2d(x, plain, bias, stride, padding)
    like = [2, layer.in_channels, side, side]
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, ones, 1, like)
    run = torch.ops.mkldnn._convolution_pointwise
    return lambda x, bias: run(x, packed, bias, padding, stride, ones, 1, "none", [], "")


def _conv(layer: nn.Conv2d, side: int) -> Layer:
    bias = None if layer.bias is None else layer.bias.data
    convolution = _convolution(layer, side)
    return lambda x: convolution(x, bias)


def _linear(weight: Tensor, bias: Tensor | None) -> Layer:
    if not _packs(weight.dtype) or (weight.dtype == torch.float32 and weight.numel() < PACKED_LINEAR):
        return lambda x: F.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    run = torch.ops.mkldnn._linear_pointwise
    return lambda x: run(x, packed, bias, "none", [], "")


def _group_norm(norm: nn.GroupNorm) -> Layer:
    weight, bias = norm.weight.data, norm.bias.data
    return lambda x: F.group_norm(x, norm.num_groups, weight, bias, norm.eps)


def _transformer(module: nn.Module) -> Callable[[Tensor, Iterator[KeysValues | None]], Tensor]:
    assert isinstance(module, Transformer2DModel)
    norm, inside, outside = _group_norm(module.norm), *(_projection(m) for m in (module.proj_in, module.proj_out))
    blocks = [_block(block) for block in module.transformer_blocks]

    def run(x: Tensor, context: Iterator[KeysValues | None]) -> Tensor:
        n, c, h, w = x.shape
        tokens = inside(norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c))
        for block in blocks:
            tokens = block(tokens, next(context))
        return outside(tokens).view(n, h, w, c).permute(0, 3, 1, 2).add_(x)

    return run


def _projection(layer: nn.Conv2d | nn.Linear) -> Layer:
    """A linear layer over channels, which Stable Diffusion 1.x holds as a 1x1 convolution."""
    weight, bias = _taken(layer)
    return _linear(weight.flatten(1).contiguous(), bias)


def _pointwise(layer: nn.Conv2d) -> Layer:
    """A 1x1 convolution as a product: packed for convolution it is ten times slower for wide, small pictures."""
    linear = _projection(layer)
    return lambda x: linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _block(module: nn.Module) -> Block:
    assert isinstance(module, BasicTransformerBlock)
    norm1, norm2, norm3 = (_layer_norm(norm) for norm in (module.norm1, module.norm2, module.norm3))
    gated, out = module.ff.net[0], module.ff.net[2]
    assert isinstance(gated, GEGLU)
    assert isinstance(out, nn.Linear)
    widen, narrow = _linear(*_taken(gated.proj)), _linear(*_taken(out))
    to_itself, to_context = _self_attention(module.attn1), _attention(module.attn2)

    def run(x: Tensor, context: KeysValues | None) -> Tensor:
        x = to_itself(norm1(x)).add_(x)
        x = to_context(norm2(x), context).add_(x)
        value, gate = widen(norm3(x)).chunk(2, dim=2)
        return narrow(F.gelu(gate).mul_(value)).add_(x)

    return run


def _layer_norm(norm: nn.LayerNorm) -> Layer:
    weight, bias = norm.weight.data, norm.bias.data
    return lambda x: F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


def _self_attention(module: Attention) -> Layer:
    layers = (module.to_q, module.to_k, module.to_v)
    weights, biases = zip(*(_taken(layer) for layer in layers), strict=True)
    assert biases == (None, None, None)
    product, out, heads = _linear(torch.cat(weights), None), _linear(*_taken(module.out_projection)), module.heads

    def run(x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = product(x).view(n, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return out(_attend(q, (k, v)))

    return run


def _attention(module: Attention) -> Block:
    """Attention to the keys and values given; its own where there are none."""
    to_q, out, heads = _linear(*_taken(module.to_q)), _linear(*_taken(module.out_projection)), module.heads

    def run(x: Tensor, context: KeysValues | None) -> Tensor:
        q = to_q(x).view(*x.shape[:2], heads, -1).transpose(1, 2)
        return out(_attend(q, module.keys_values(x) if context is None else context))

    return run


def _attend(q: Tensor, keys_values: KeysValues) -> Tensor:
    if q.dtype == torch.bfloat16 and q.shape[0] * q.shape[1] < FUSED_BELOW:
        return F.scaled_dot_product_attention(q, *keys_values).transpose(1, 2).flatten(2)
    return attend(q, keys_values)
