"""A small U-Net whose norms see the whole feature map, as in a public write-up of DDPM on Fashion-MNIST.

Shapes: N samples of c channels and side s; stages i of Ci channels (C(-1) = C0); T = TIME_DIM.

sides   28 ─ 14 ─ 7 ─ 3 ─ 7 ─ 14 ─ 28
widths  10   20   40  40  20  10   10

A stage is told the time and has three blocks; skips are concatenated. Two of the write-up's errors are corrected:

- Its table of times has the exponent doubled, which leaves half of the frequencies dead: here it is the usual one.
- Its first norm takes the mean out of the noisy picture, so no noise is ever found in that mean. What is there grows by
  1 / sqrt(alphas_cumprod) while drawing, 157 times over a thousand linear steps, and pictures end all black or all
  white. Here the noisy picture, at most times nearly its noise, is added to what the last convolution makes of it.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config.denoisers import DenoiserSizes, LayerNormUNetConfig
from darkroom.nn.denoiser.base import Context, DenoisingNetwork
from darkroom.nn.layers.blocks import timestep_embedding, zero_

WIDTHS = (10, 20, 40)
TIMES, TIME_DIM = 1000, 100  # rows and columns of the table of times


class LayerNormUNet(DenoisingNetwork):
    """Noisy pictures and a time in [0, 999] -> a prediction of their shape.

    The time is a row of a frozen table of sinusoids (Vaswani et al. 2017, section 3.5); between two rows it is
    interpolated.
    """

    config: LayerNormUNetConfig

    def __init__(self, config: LayerNormUNetConfig, sizes: DenoiserSizes) -> None:
        super().__init__(config, sizes)
        channels, (first, second, third) = sizes.in_channels, WIDTHS
        sides = [sizes.sample_size // 2**halvings for halvings in range(4)]
        table = timestep_embedding(torch.arange(TIMES), TIME_DIM, flip_sin_to_cos=False, freq_shift=0)
        self.times = nn.Parameter(table, requires_grad=False)
        self.down = nn.ModuleList(
            _Stage(side, before, width, width, width)
            for side, before, width in zip(sides[:3], (channels, *WIDTHS), WIDTHS, strict=False)
        )
        self.downsamplers = nn.ModuleList([_halve(first), _halve(second), _halve_odd(third)])
        self.mid = _Stage(sides[3], third, second, second, third)
        self.upsamplers = nn.ModuleList([_double_odd(third), _double(second), _double(first)])
        self.up = nn.ModuleList(
            [
                _Stage(sides[2], 2 * third, third, second, second),
                _Stage(sides[1], 2 * second, second, first, first),
                _Stage(sides[0], 2 * first, first, first, first),
            ]
        )
        self.conv_out = nn.Conv2d(first, channels, 3, padding=1)
        zero_(self.conv_out)

    def forward(
        self, sample: Tensor, timestep: Tensor, context: Context | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """See `DenoisingNetwork.forward`; times outside the table count as its first or last row."""
        self._check(sample, context, class_labels)
        # fmt: off
        time = self._time(timestep).to(sample.dtype)                              # (N, T)
        x, skips = sample, []                                                     # (N, c, s, s)
        for stage, downsample in zip(self.down, self.downsamplers, strict=True):  # i = 0, 1, 2
            skips.append(stage(x, time))                                          # (N, Ci, s // 2^i, …)
            x = downsample(skips[-1])                                             # (N, Ci, s // 2^(i + 1), …)
        x = self.mid(x, time)                                                     # (N, C2, s // 8, …)
        for stage, upsample in zip(self.up, self.upsamplers, strict=True):        # i = 2, 1, 0
            x = torch.cat((skips.pop(), upsample(x)), dim=1)                      # (N, 2 * Ci, s // 2^i, …)
            x = stage(x, time)                                                    # (N, C(i - 1), s // 2^i, …)
        out: Tensor = sample + self.conv_out(x)                                   # (N, c, s, s)
        return out
        # fmt: on

    def _time(self, timestep: Tensor) -> Tensor:
        """(N,) -> (N, 100) float32."""
        t = timestep.float().clamp(0, TIMES - 1)
        below = t.long()
        above = (below + 1).clamp(max=TIMES - 1)
        return torch.lerp(self.times[below].float(), self.times[above].float(), (t - below)[:, None])


def _halve(channels: int) -> nn.Module:
    return nn.Conv2d(channels, channels, 4, stride=2, padding=1)


def _double(channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)


def _halve_odd(channels: int) -> nn.Module:
    """An odd side 2 n + 1 -> n."""
    return nn.Sequential(nn.Conv2d(channels, channels, 2), nn.SiLU(), _halve(channels))


def _double_odd(channels: int) -> nn.Module:
    """n -> 2 n + 1."""
    return nn.Sequential(_double(channels), nn.SiLU(), nn.ConvTranspose2d(channels, channels, 2))


class _Stage(nn.Module):
    """The time added to every position, then blocks from each width to the next."""

    def __init__(self, side: int, *widths: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(TIME_DIM, widths[0]), nn.SiLU(), nn.Linear(widths[0], widths[0]))
        self.blocks = nn.Sequential(*(_Block(side, before, width) for before, width in pairwise(widths)))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.blocks(x + self.time(time)[:, :, None, None])
        return out


class _Block(nn.Module):
    def __init__(self, side: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm((in_channels, side, side))
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv2(F.silu(self.conv1(self.norm(x)))))
