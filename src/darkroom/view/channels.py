"""The latent channels of an autoencoder, as bars."""

from collections.abc import Collection, Sequence

from matplotlib.figure import Figure
from PIL import Image

from darkroom.view.sheet import rasterised

HEIGHT, DPI = 260, 100  # of the plot, in pixels


def channel_bars(
    signal: Sequence[float], kl: Sequence[float], dead: Collection[int], threshold: float, width: int
) -> Image.Image:
    """Signal and KL of each channel, those of dead channels red, `width` pixels wide.

    Args:
        threshold: of the signal, below which a channel is dead.
    """
    figure = Figure(figsize=(width / DPI, HEIGHT / DPI), dpi=DPI, layout="constrained")
    colours = ["tab:red" if channel in dead else "tab:blue" for channel in range(len(signal))]
    panels = (
        (f"share of a latent channel that depends on the picture (dead, red: below {threshold})", signal),
        ("KL of a latent channel, nats per element", kl),
    )
    for axis, (title, values) in zip(figure.subplots(1, 2), panels, strict=True):
        axis.set_title(title, fontsize="small")
        axis.grid(alpha=0.3, axis="y")
        axis.bar(range(len(values)), values, color=colours)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].set_ylim(0, 1)
    figure.axes[0].axhline(threshold, color="grey", linestyle=":")
    return rasterised(figure)
