"""A large plain U-Net with batch norms, as in a public write-up of DDPM on 64 x 64 photographs.

Shapes: N samples; c, h, w channels and sides of the pictures; Ci channels after i halvings; T = TIME_DIM.

sides   64 ─ 64 ─ 32 ─ 16 ─ 8 ─ 4 ─ 8 ─ 16 ─ 32 ─ 64
widths   3   64  128  256 512 1024 512 256  128   64

Every up block takes as many channels of a skip as come from below. What a down block gives is the skip of the up block
that works at its size; for the first one, at the lowest size, that is what it already has, and the write-up hands it
the same tensor twice. Here its skip is the last down block's features before they are halved by a convolution, brought
to its size by averaging: the only other tensor of that width, and no weight more or less.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config.denoisers import BatchNormUNetConfig, DenoiserSizes
from darkroom.nn.denoiser.base import Context, DenoisingNetwork
from darkroom.nn.layers.blocks import timestep_embedding

TIME_DIM = 32


class BatchNormUNet(DenoisingNetwork):
    """Noisy pictures and a time -> a prediction of their shape.

    In training a prediction depends on its batch; draw and validate in eval mode.
    """

    config: BatchNormUNetConfig

    def __init__(self, config: BatchNormUNetConfig, sizes: DenoiserSizes) -> None:
        super().__init__(config, sizes)
        widths = config.widths
        self.time_embedding = nn.Linear(TIME_DIM, TIME_DIM)
        self.conv_in = nn.Conv2d(sizes.in_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_Block(before, width) for before, width in pairwise(widths))
        self.downsamplers = nn.ModuleList(nn.Conv2d(width, width, 4, stride=2, padding=1) for width in widths[1:])
        self.up = nn.ModuleList(_Block(2 * before, width) for before, width in pairwise(widths[::-1]))
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1) for width in widths[-2::-1]
        )
        self.conv_out = nn.Conv2d(widths[0], sizes.in_channels, 1)

    def forward(
        self, sample: Tensor, timestep: Tensor, context: Context | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """See `DenoisingNetwork.forward`."""
        self._check(sample, context, class_labels)
        # fmt: off
        sinusoids = timestep_embedding(timestep, TIME_DIM, flip_sin_to_cos=False, freq_shift=1)
        time = F.relu(self.time_embedding(sinusoids.to(sample.dtype)))            # (N, T)
        x, skips = self.conv_in(sample), []                                       # (N, C0, h, w)
        for block, downsample in zip(self.down, self.downsamplers, strict=True):  # i = 1 … L
            features = block(x, time)                                             # (N, Ci, h / 2^(i - 1), …)
            x = downsample(features)                                              # (N, Ci, h / 2^i, …)
            skips.append(x)
        skips[-1] = F.avg_pool2d(features, 2)                                     # (N, CL, h / 2^L, …)
        for block, upsample in zip(self.up, self.upsamplers, strict=True):        # i = L … 1
            x = block(torch.cat((x, skips.pop()), dim=1), time)                   # (N, C(i - 1), h / 2^i, …)
            x = upsample(x)                                                       # (N, C(i - 1), h / 2^(i - 1), …)
        out: Tensor = self.conv_out(x)                                            # (N, c, h, w)
        return out
        # fmt: on


class _Block(nn.Module):
    """norm(ReLU(conv)), the time added, norm(ReLU(conv))."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.time = nn.Linear(TIME_DIM, out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.norm1(F.relu(self.conv1(x))) + F.relu(self.time(time))[:, :, None, None]
        out: Tensor = self.norm2(F.relu(self.conv2(x)))
        return out
