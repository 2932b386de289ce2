"""A noise process: pictures that get noisier, with its log-SNR below."""

import math
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from darkroom.config.diffusion import ProcessConfig
from darkroom.core.rng import randn_each
from darkroom.core.tensors import to_float, to_pil, to_uint8
from darkroom.diffusion.process import Process, process_of
from darkroom.diffusion.schedule import CLEAN, Level
from darkroom.nn.autoencoder.identity import IdentityAutoencoder
from darkroom.view.sheet import Plate, rasterised, stacked, table
from darkroom.view.trace import visible

ROWS = 4  # pictures that are shown
FRACTIONS = (0.25, 0.5, 0.75, 1.0)  # of the process' last time
HEIGHT, DPI = 300, 100  # of the curve below them, in pixels
POINTS = 1000
LOWERED = "the same, its contrast lowered to be seen"


def forward_of_pictures(
    pictures: Tensor, captions: Sequence[str], process: ProcessConfig, black: float, white: float
) -> Image.Image:
    """`forward` of pictures uint8 (N, C, H, W) themselves; black, white: what they are to the process."""
    pixels = IdentityAutoencoder(black, white)
    x0 = pixels.encode(to_float(pictures)).mean
    return forward(x0, captions, process_of(process), pixels.decode, pixels.centre)


def forward(
    x0: Tensor, captions: Sequence[str], process: Process, decode: Callable[[Tensor], Tensor], centre: float
) -> Image.Image:
    """A row for each picture: clean, and at four times of the process, with the same noise in all.

    All are shown in one range. Where the noise is beyond it, as that of variance-exploding processes, a second row
    shows the same pictures as `visible` makes them.

    Args:
        x0: what the process adds noise to, (N, c, h, w).
        decode: from there to pictures (N, C, H, W) in [-1, 1]; called once.
        centre: what keeps its value where contrast is lowered.
    """
    marked = [(fraction, process.level(fraction * process.latest)) for fraction in FRACTIONS]
    levels = [CLEAN, *(level for _, level in marked)]
    eps = randn_each(tuple(x0.shape[1:]), list(range(len(x0))), "forward")
    noisy = [level.alpha * x0 + level.sigma * eps for level in levels]
    if process.spread > 1:
        pairs = list(zip(levels, noisy, strict=True))
        noisy += [visible(x, float(level.alpha), float(level.sigma), centre) for level, x in pairs]
    pictures = to_uint8(decode(torch.cat(noisy)))
    rows_of_levels = pictures.view(-1, len(levels), len(x0), *pictures.shape[1:])  # (1 or 2, levels, N, C, H, W)
    rows = []
    for i, caption in enumerate(captions):
        for row, words in zip(rows_of_levels, (caption, LOWERED), strict=False):
            rows.append(Plate([to_pil(picture) for picture in row[:, i]], words))
    headings = [f"{fraction:.0%}   α {level.alpha:.3f}   σ {level.sigma:.3f}" for fraction, level in marked]
    above = table(["clean", *headings], rows)
    return stacked(above, _log_snr(process, above.width))


def _log_snr(process: Process, width: int) -> Image.Image:
    """log(alpha^2 / sigma^2) over the times that are trained, `width` pixels wide, the shown times marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, HEIGHT / DPI), dpi=DPI, layout="constrained")
    axis = figure.add_subplot(xlabel="time, as the network is told it", ylabel="log SNR")
    axis.grid(alpha=0.3)
    times = process.training_times(torch.linspace(0, 1, POINTS, dtype=torch.float64)[:-1]).tolist()
    axis.plot(times, [log_snr(process.level(time)) for time in times])
    for fraction in FRACTIONS:
        time = fraction * process.latest
        axis.axvline(time, color="grey", linestyle=":")
        axis.plot([time], [log_snr(process.level(time))], "o", color="black")
    return rasterised(figure)


def log_snr(level: Level) -> float:
    """log(alpha^2 / sigma^2) of a level with noise; -inf where there is nothing else."""
    alpha, sigma = float(level.alpha), float(level.sigma)
    return 2 * math.log(alpha / sigma) if alpha > 0 else -math.inf
