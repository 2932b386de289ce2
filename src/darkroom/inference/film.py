"""A film of the drawing: the latents at each step, decoded, beside the picture the model expects there."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from darkroom.core.artifact import whole
from darkroom.core.sheet import Plate, sheet
from darkroom.core.tensors import to_pil
from darkroom.inference.pipeline import Pipeline

COLUMNS = 3
DENOISED = 6  # pictures that a film shows
FRAME, HOLD = 120, 3000  # milliseconds a step is shown, and the result


class Film:
    """Watches a batch being drawn, see `watch`.

    All frames show the same range, [-1, 1]; the last one stays for a while.

    Args:
        captions: of the first pictures of the batch; the others are not shown.
        start: latents that the walk begins with, if they are to be shown.
    """

    def __init__(self, pipeline: Pipeline, captions: Sequence[str], start: Tensor | None = None) -> None:
        self.pipeline, self.captions = pipeline, captions
        self.walk = [] if start is None else [start[: len(captions)]]
        self.expected: list[Tensor] = []

    def watch(self, step: int, x: Tensor, x0: Tensor) -> None:
        """Remember a step; give it as `on_step`."""
        self.walk.append(x[: len(self.captions)])
        self.expected.append(x0[: len(self.captions)])

    def save(self, path: Path) -> None:
        """Write the film as a GIF."""
        last = self.walk[-1]
        expected = [*self.expected, last][-len(self.walk) :]
        first = len(self.expected) - len(self.walk) + 1
        frames = []
        for step, states in enumerate(zip(self.walk, expected, strict=True), first):
            pairs = zip(*(map(to_pil, self.pipeline.decode(latents)) for latents in states), strict=True)
            plates = [Plate(pair, caption) for pair, caption in zip(pairs, self.captions, strict=True)]
            heading = (
                f"step {step:2d} of {len(self.expected)}   left: the picture so far   right: what is expected of it"
            )
            frames.append(sheet(plates, COLUMNS, heading))
        _save_gif(frames, path)


def _save_gif(frames: list[Image.Image], path: Path) -> None:
    durations = [FRAME] * (len(frames) - 1) + [HOLD]
    frames = [  # rare colours first, then k-means: without visible steps, and the paper keeps its shade
        frame.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE) for frame in frames
    ]
    with whole(path) as beside:
        frames[0].save(beside, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
