"""The autoencoder in a form for encoding and drawing on CUDA: 16-bit weights, channels last, in fewer operations."""

from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config.base import Precision
from darkroom.nn.autoencoder.identity import Autoencoder
from darkroom.nn.autoencoder.vae import LOGVAR_RANGE, AutoencoderKL, Moments
from darkroom.nn.layers.attention import SpatialAttention
from darkroom.nn.layers.blocks import Downsample2D, ResnetBlock2D, Upsample2D
from darkroom.nn.layers.packed import Layer, Layers, linear


class PackedAutoencoder:
    """An AutoencoderKL that is no longer trained, computed in `dtype`; it agrees with it up to rounding.

    Its convolutions and linear layers are copies, each half's made at its first use; the autoencoder itself stays whole
    and must not change afterwards. Autocast has no say in it.
    """

    def __init__(self, vae: AutoencoderKL, dtype: torch.dtype = torch.bfloat16) -> None:
        self._vae, self.downscale = vae, vae.downscale
        self._layers = Layers(vae.post_quant_conv.weight.device, dtype, copies=True)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Moments:
        """See AutoencoderKL.encode; the weights of the encoder must have been read."""
        mean, logvar = self._run(self._encoder, x).chunk(2, dim=1)
        return Moments(mean, logvar.clamp(*LOGVAR_RANGE))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """See AutoencoderKL.decode."""
        return self._run(self._decoder, z)

    def _run(self, layers: list[Layer], x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self._layers.dtype).contiguous(memory_format=torch.channels_last)
            for layer in layers:
                x = layer(x)
        return x

    @cached_property
    def _encoder(self) -> list[Layer]:
        return [*self._half(self._vae.encoder), self._layers.conv(self._vae.quant_conv, 1)]

    @cached_property
    def _decoder(self) -> list[Layer]:
        return [self._layers.conv(self._vae.post_quant_conv, 1), *self._half(self._vae.decoder)]

    def _half(self, half: nn.Module) -> list[Layer]:
        """What the encoder or decoder computes with, in the order in which they hold it but for the middle.

        That lies between the levels and the last layers in the encoder, and before the levels in the decoder.
        """
        levels = [layer for block in half.get_submodule("up_blocks" if _decodes(half) else "down_blocks").children()
                  for layer in self._level(block)]  # fmt: skip
        middle = self._middle(half.get_submodule("mid_block"))
        norm = half.get_submodule("conv_norm_out")
        assert isinstance(norm, nn.GroupNorm)
        activated = self._layers.group_norm(norm, silu=True)
        inner = [*middle, *levels] if _decodes(half) else [*levels, *middle]
        ends = [self._conv(half.get_submodule(name)) for name in ("conv_in", "conv_out")]
        return [ends[0], *inner, lambda x: activated(x, None), ends[1]]

    def _level(self, block: nn.Module) -> list[Layer]:
        layers = [self._resnet(module) for module in block.get_submodule("resnets").children()]
        for name in ("downsamplers", "upsamplers"):
            for module in getattr(block, name, ()):
                layers.append(self._sampler(module))
        return layers

    def _middle(self, block: nn.Module) -> list[Layer]:
        before, behind = (self._resnet(module) for module in block.get_submodule("resnets").children())
        return [before, *map(self._attention, block.get_submodule("attentions").children()), behind]

    def _sampler(self, module: nn.Module) -> Layer:
        assert isinstance(module, Downsample2D | Upsample2D)
        conv = self._conv(module.conv)
        if isinstance(module, Upsample2D):
            return lambda x: conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        assert module.asymmetric
        return lambda x: conv(F.pad(x, (0, 1, 0, 1)))

    def _conv(self, module: nn.Module) -> Layer:
        assert isinstance(module, nn.Conv2d)
        return self._layers.conv(module, 1)

    def _resnet(self, module: nn.Module) -> Layer:
        assert isinstance(module, ResnetBlock2D)
        norm1, norm2 = (self._layers.group_norm(norm, silu=True) for norm in (module.norm1, module.norm2))
        bias, conv1 = self._layers.bias(module.conv1), self._layers.convolution(module.conv1, 1)
        residual = self._layers.residual(module.conv2, module.conv_shortcut, 1)
        if self._layers.fused and bias is not None:  # the norm adds it on its way
            row = bias[None]
            return lambda x: residual(norm2(conv1(norm1(x, None), None), row.expand(len(x), -1)), x)
        return lambda x: residual(norm2(conv1(norm1(x, None), bias), None), x)

    def _attention(self, module: nn.Module) -> Layer:
        assert isinstance(module, SpatialAttention)
        norm = self._layers.group_norm(module.group_norm, silu=False)
        projections = [self._layers.parameters(layer) for layer in (module.to_q, module.to_k, module.to_v)]
        biases = [bias for _, bias in projections if bias is not None]
        product = linear(torch.cat([weight for weight, _ in projections]), torch.cat(biases))
        out: Callable[[Tensor], Tensor] = self._layers.linear(module.out_projection)

        def run(x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            tokens = norm(x, None).permute(0, 2, 3, 1).reshape(n, h * w, c)
            q, k, v = product(tokens)[:, None].chunk(3, dim=3)
            attended = F.scaled_dot_product_attention(q, k, v)[:, 0]
            return out(attended).view(n, h, w, c).permute(0, 3, 1, 2).add_(x)

        return run


def _decodes(half: nn.Module) -> bool:
    return hasattr(half, "up_blocks")


def quick(vae: Autoencoder, device: torch.device, precision: Precision) -> Autoencoder | PackedAutoencoder:
    """The autoencoder in the form that `device` computes fastest with, for work in `precision` under autocast."""
    if device.type == "cuda" and precision == "bf16" and isinstance(vae, AutoencoderKL):
        return PackedAutoencoder(vae)
    return vae
