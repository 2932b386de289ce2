"""The KL autoencoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752), diffusers' `AutoencoderKL`.

Shapes: N pictures of C channels and H x W pixels, latents of c channels; levels 0 … L of Ci channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from darkroom.config.networks import AutoencoderKLConfig, PictureSizes
from darkroom.nn.layers.attention import SpatialAttention
from darkroom.nn.layers.blocks import Downsample2D, ResnetBlock2D, Upsample2D, zero_
from darkroom.nn.layers.fused_norm import normed
from darkroom.nn.layers.recompute import Recomputing

EPS = 1e-6  # of every group norm of the VAE
LOGVAR_RANGE = (-30.0, 20.0)


class Moments(NamedTuple):
    """A diagonal Gaussian over latents (N, c, h, w): its mean and the logarithm of its variance, in [-30, 20]."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise, for standard normal noise (N, c, h, w)."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise


class _MidBlock(Recomputing):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([SpatialAttention(channels, groups, EPS)])
        self.resnets = nn.ModuleList([ResnetBlock2D(channels, channels, None, groups, EPS) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.resnets[0], self.attentions[0], self.resnets[1]):
            x = self.computed(layer, x)
        return x


class _DownBlock(Recomputing):
    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, downsample: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock2D(in_channels if i == 0 else out_channels, out_channels, None, groups, EPS)
            for i in range(layers)
        )
        self.downsamplers = nn.ModuleList([Downsample2D(out_channels, asymmetric=True)] if downsample else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers):
            x = self.computed(layer, x)
        return x


class _UpBlock(Recomputing):
    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, upsample: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock2D(in_channels if i == 0 else out_channels, out_channels, None, groups, EPS)
            for i in range(layers)
        )
        self.upsamplers = nn.ModuleList([Upsample2D(out_channels)] if upsample else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = self.computed(layer, x)
        return x


class _Encoder(nn.Module):
    def __init__(self, c: AutoencoderKLConfig, channels: int) -> None:
        super().__init__()
        widths, groups = c.block_out_channels, c.norm_num_groups
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            _DownBlock(widths[max(i - 1, 0)], width, c.layers_per_block, groups, downsample=i < len(widths) - 1)
            for i, width in enumerate(widths)
        )
        self.mid_block = _MidBlock(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * c.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # fmt: off
        h = self.conv_in(x)             # (N, C0, H, W)
        for block in self.down_blocks:  # i = 0 … L
            h = block(h)                # (N, Ci, H / 2^(i + 1), …); level L keeps H / 2^L
        h = self.mid_block(h)           # (N, CL, H / 2^L, W / 2^L)
        h = normed(self.conv_norm_out, h, activate=True)
        out: Tensor = self.conv_out(h)  # (N, 2 * c, H / 2^L, …)
        return out
        # fmt: on


class _Decoder(nn.Module):
    def __init__(self, c: AutoencoderKLConfig, channels: int) -> None:
        super().__init__()
        widths, groups = c.block_out_channels[::-1], c.norm_num_groups
        self.conv_in = nn.Conv2d(c.latent_channels, widths[0], 3, padding=1)
        self.mid_block = _MidBlock(widths[0], groups)
        self.up_blocks = nn.ModuleList(
            _UpBlock(widths[max(i - 1, 0)], width, c.layers_per_block + 1, groups, upsample=i < len(widths) - 1)
            for i, width in enumerate(widths)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        # fmt: off
        h = self.mid_block(self.conv_in(z))  # (N, CL, H / 2^L, W / 2^L)
        for block in self.up_blocks:         # i = L … 0
            h = block(h)                     # (N, Ci, H / 2^(i - 1), …); level 0 keeps H
        h = normed(self.conv_norm_out, h, activate=True)
        out: Tensor = self.conv_out(h)       # (N, C, H, W)
        return out
        # fmt: on


class AutoencoderKL(nn.Module):
    """Pictures in [-1, 1] to Gaussians over latents 2^(levels - 1) times smaller on each side, and back."""

    def __init__(self, config: AutoencoderKLConfig, sizes: PictureSizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        self.encoder = _Encoder(config, sizes.in_channels)
        self.decoder = _Decoder(config, sizes.in_channels)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)
        self._init_weights()

    def _init_weights(self) -> None:
        """Every residual branch starts at zero, so at first a block passes its input (or its short cut) through."""
        for module in self.modules():
            if isinstance(module, ResnetBlock2D):
                zero_(module.conv2)
            elif isinstance(module, SpatialAttention):
                zero_(module.out_projection)

    @property
    def downscale(self) -> int:
        """Pixels per latent position, along one side."""
        return self.config.downscale

    @property
    def centre(self) -> float:
        """The unscaled latent about which noisy latents lose contrast so that they can be looked at."""
        return 0.0

    @property
    def last_layer(self) -> Tensor:
        """The weight that makes the picture: an adversarial loss balances its gradient against the reconstruction's."""
        return self.decoder.conv_out.weight

    @torch.no_grad()
    def shift_logvar(self, nats: float) -> None:
        """Add `nats` to the log variance that every channel's posterior has."""
        assert self.quant_conv.bias is not None
        self.quant_conv.bias[self.config.latent_channels :] += nats

    def encode(self, x: Tensor) -> Moments:
        """Pictures (N, C, H, W) in [-1, 1], sides divisible by `downscale` -> moments (N, c, H / d, W / d)."""
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return Moments(mean, logvar.clamp(*LOGVAR_RANGE))

    def decode(self, z: Tensor) -> Tensor:
        """Unscaled latents (N, c, h, w) -> pictures (N, C, d * h, d * w), about [-1, 1] but not clamped to it."""
        out: Tensor = self.decoder(self.post_quant_conv(z))
        return out
