"""The critic of the VAE's pictures: a PatchGAN (Isola et al. 2017, arXiv:1611.07004, section 3.2.2)."""

from torch import Tensor, nn

from darkroom.config.networks import PatchDiscriminatorConfig
from darkroom.nn.layers.blocks import group_norm

MAX_WIDENING = 8  # widths double from layer to layer up to this multiple of the first


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: real pictures towards high values, reconstructions towards low ones.

    Group norm in place of the original's batch norm: with that, real and reconstructed pictures of a batch would judge
    each other through their common statistics, and one process and two would compute different losses.
    """

    def __init__(self, config: PatchDiscriminatorConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i in range(1, config.n_layers + 1):
            before, width = width, min(2 * width, MAX_WIDENING * config.channels)
            stride = 2 if i < config.n_layers else 1
            layers += [
                nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=False),
                group_norm(width),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(width, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        self._init_weights()

    def _init_weights(self) -> None:
        """Small normal weights, as in DCGAN and pix2pix: the critic starts without an opinion."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures (N, C, H, W) in [-1, 1] -> one logit per patch (N, 1, H / 2^layers - 2, W / 2^layers - 2)."""
        # fmt: off
        x = images                    # (N, C, H, W)
        for layer in self.layers:     # i = 1 … n_layers: (N, min(2^i, 8) * channels, …), sides halved but by the last
            x = layer(x)
        return x                      # (N, 1, H / 2^layers - 2, W / 2^layers - 2), layers: n_layers
        # fmt: on
