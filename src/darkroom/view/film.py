"""Films: the latents of a batch at each step, decoded, beside the pictures that the model expects there."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from darkroom.core.artifact import atomic_path
from darkroom.core.tensors import save_png, to_pil
from darkroom.diffusion.schedule import Level
from darkroom.view.sheet import STRIP_COLUMNS, STRIP_ROWS, Moment, Plate, sheet, strip
from darkroom.view.trace import Trace, evenly, visible

COLUMNS = 3
DENOISED = 6  # pictures that a film shows
FRAMES = 100  # at most
FRAME, HOLD = 120, 3000  # milliseconds that a frame is shown, and the result


class Film:
    """Watches a batch being drawn: give its `watch` as `on_step`.

    Everything is shown in one range, [-1, 1]; latents whose noise exceeds it as `visible` makes them.

    Args:
        captions: of the first pictures of the batch; the others are not shown.
        levels: the noise levels of the steps, the first and the last included.
        decode: scaled latents (N, c, h, w) -> pictures, uint8 (N, C, H, W).
        centre: the scaled latent about which noisy ones lose contrast.
        initial: the latents (N, c, h, w) at the first level, to be shown too; None: the film begins after a step.
    """

    def __init__(
        self,
        captions: Sequence[str],
        levels: Sequence[Level],
        decode: Callable[[Tensor], Tensor],
        centre: float,
        initial: Tensor | None = None,
    ) -> None:
        self.captions, self.levels, self.decode, self.centre = captions, levels, decode, centre
        self.steps = len(levels) - 1
        first = 1 if initial is None else 0
        self.frames, self.columns = (
            [first + state for state in evenly(len(levels) - first, most)] for most in (FRAMES, STRIP_COLUMNS)
        )
        self.trace = Trace([*self.frames, *self.columns], len(captions))
        self.watch = self.trace.watch
        if initial is not None:
            self.trace.start(initial)

    def save(self, path: Path) -> None:
        """Write the film as a GIF, in which the last frame stays for a while."""
        frames = []
        for state, pairs in self._pictures(self.frames, len(self.captions)):
            plates = [Plate(pair, caption) for pair, caption in zip(pairs, self.captions, strict=True)]
            heading = f"step {state:2d} of {self.steps}   left: the picture so far   right: what is expected of it"
            frames.append(sheet(plates, COLUMNS, heading))
        _save_gif(frames, path)

    def save_strip(self, path: Path) -> None:
        """Write moments of the film side by side, as a PNG."""
        captions = self.captions[:STRIP_ROWS]
        moments = [
            Moment(f"step {state} of {self.steps}", *zip(*pairs, strict=True))
            for state, pairs in self._pictures(self.columns, len(captions))
        ]
        save_png(path, strip(captions, moments))

    def _pictures(self, states: Sequence[int], n: int) -> Iterator[tuple[int, list[tuple[Image.Image, ...]]]]:
        """For each state the first n pictures (so far, expected)."""
        for state, x, x0 in self.trace:
            if state in states:
                alpha, sigma = map(float, self.levels[state])
                both = [self.decode(z[:n]) for z in (visible(x, alpha, sigma, self.centre), x0)]
                yield state, list(zip(*(map(to_pil, pictures) for pictures in both), strict=True))


def _save_gif(frames: list[Image.Image], path: Path) -> None:
    durations = [FRAME] * (len(frames) - 1) + [HOLD]
    frames = [  # rare colours first, then k-means: without visible steps, and the paper keeps its shade
        frame.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE) for frame in frames
    ]
    with atomic_path(path) as beside:
        frames[0].save(beside, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
