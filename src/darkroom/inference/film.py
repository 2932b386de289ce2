"""The drawing of a batch to look at: the latents at each step, decoded, beside the picture the model expects there."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from darkroom.core.artifact import atomic_path
from darkroom.core.tensors import save_png, to_pil, visible
from darkroom.diffusion.generate import Sampling, begin
from darkroom.inference.pipeline import Pipeline
from darkroom.view.sheet import STRIP_COLUMNS, STRIP_ROWS, Moment, Plate, sheet, strip
from darkroom.view.trace import Trace, evenly

COLUMNS = 3
DENOISED = 6  # pictures that a film shows
FRAMES = 100  # at most
FRAME, HOLD = 120, 3000  # milliseconds a frame is shown, and the result


class Film:
    """Watches a batch being drawn: give its `watch` as `on_step`.

    Everything is shown in one range, [-1, 1]; latents whose noise is beyond it as `visible` makes them.

    Args:
        captions: of the first pictures of the batch; the others are not shown.
        how, strength: the walk, as the pipeline is asked for it; strength: of given pictures, 1 without.
        start: the noise of the batch, if the walk's beginning is to be shown; only where nothing is given.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        captions: Sequence[str],
        how: Sampling,
        strength: float = 1.0,
        start: Tensor | None = None,
    ) -> None:
        self.pipeline, self.captions = pipeline, captions
        self.levels = how.levels(pipeline.schedule, pipeline.info.prediction_type, strength)
        first = 1 if start is None else 0
        self.steps = len(self.levels) - 1
        states = self.steps + 1 - first
        self.frames, self.columns = (
            [first + state for state in evenly(states, most)] for most in (FRAMES, STRIP_COLUMNS)
        )
        self.trace = Trace([*self.frames, *self.columns], len(captions))
        self.watch = self.trace.watch
        if start is not None:
            self.trace.start(begin(how, pipeline.schedule, self.levels, start))

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
                both = (self.pipeline.decode(z[:n].to(self.pipeline.device)) for z in (self._seen(state, x), x0))
                yield state, list(zip(*(map(to_pil, pictures) for pictures in both), strict=True))

    def _seen(self, state: int, x: Tensor) -> Tensor:
        alpha, sigma = self.levels[state]
        centre = self.pipeline.vae.centre * self.pipeline.info.scaling_factor
        return visible(x, float(alpha), float(sigma), centre)


def _save_gif(frames: list[Image.Image], path: Path) -> None:
    durations = [FRAME] * (len(frames) - 1) + [HOLD]
    frames = [  # rare colours first, then k-means: without visible steps, and the paper keeps its shade
        frame.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE) for frame in frames
    ]
    with atomic_path(path) as beside:
        frames[0].save(beside, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
