"""How a picture comes about, step by step, and how the process that a model was trained on turns one into noise."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from darkroom.core.rng import randn_each
from darkroom.core.tensors import save_png, to_pil
from darkroom.diffusion.schedule import CLEAN, Level
from darkroom.inference.editing import as_pictures
from darkroom.serving.queueing import Watch
from darkroom.studio.request import PageRequest, opened, record_within, remarks
from darkroom.studio.seeds import seeds_in
from darkroom.studio.work import OnProgress, Studio, unseen
from darkroom.view.forward import log_snr
from darkroom.view.trace import visible

MOMENTS = 40  # of the process that noise is added by, besides the clean picture


@dataclass(frozen=True)
class Frame:
    """A moment. files: what is shown beside each other, with a label each. said: where it stands."""

    said: str
    files: list[tuple[str, Path]]


@dataclass(frozen=True)
class Filmed:
    """Moments in order.

    gif: the same as a film. picture: what came of it, a file with its record. None: there is none.
    """

    frames: list[Frame]
    gif: Path | None
    picture: Path | None
    remarks: list[str]


def denoising(studio: Studio, name: str, asked: PageRequest, on_progress: OnProgress = unseen) -> Filmed:
    """A picture of the first prompt and seed as it comes about: so far, and what the model expects of it.

    Raises:
        DarkroomError: see `Studio.draw`.
    """

    def work(watch: Watch) -> Filmed:
        model = studio.models.model(name)
        pipeline = model.pipeline
        first = replace(asked, prompts=asked.prompts[:1], seeds=str(seeds_in(asked.seeds, studio.limits)[0]))
        record = record_within(first, pipeline, studio.limits.of_model(pipeline.info.image_size))
        film = pipeline.film(record.prompts, record.sampling, seeds=record.seeds)

        (picture,), _ = studio.drawn_by(model, record, watch, on_progress, film.watch)
        folder, frames = picture.parent, list[Frame]()
        for state, x, x0 in film.trace:
            if state not in film.frames:
                continue
            alpha, sigma = map(float, film.levels[state])
            both = {"so far": visible(x, alpha, sigma, film.centre), "expected": x0}
            files = []
            for label, latents in both.items():
                path = folder / f"step-{state}-{label.replace(' ', '-')}.png"
                save_png(path, to_pil(film.decode(latents[:1])[0]))
                files.append((label, path))
            frames.append(Frame(f"step {state} of {film.steps}   α {alpha:.3f}   σ {sigma:.3f}", files))
        film.save(folder / "denoising.gif")
        return Filmed(frames, folder / "denoising.gif", picture, remarks(record, pipeline))

    return studio.in_turn(work)


def noising(studio: Studio, name: str, picture: Path) -> Filmed:
    """A picture as the model's process makes noise of it, with the same noise at all times.

    Raises:
        DarkroomError: it cannot be used, or is too large.
    """

    def work(watch: Watch) -> Filmed:
        pipeline = studio.models.model(name).pipeline
        limits, process = studio.limits.of_model(pipeline.info.image_size), pipeline.schedule
        clean = as_pictures(opened(picture, pipeline.info.image_size, limits, fit=True), pipeline.info.channels)
        x0, factor = pipeline.encode(clean), pipeline.info.scaling_factor
        eps = randn_each(tuple(x0.shape[1:]), [0], "forward").to(x0)
        folder, frames = studio.new_folder(), list[Frame]()
        for i in range(MOMENTS + 1):
            watch.check()
            fraction = i / MOMENTS
            level = process.level(fraction * process.latest) if i else CLEAN
            noisy = level.alpha * x0 + level.sigma * eps
            seen = visible(noisy, float(level.alpha), float(level.sigma), pipeline.vae.centre * factor)
            path = folder / f"time-{i:03d}.png"
            save_png(path, to_pil(pipeline.decode(seen)[0]))
            frames.append(Frame(_where(fraction, level), [("the picture with its noise", path)]))
        return Filmed(frames, None, None, [])

    return studio.in_turn(work)


def _where(fraction: float, level: Level) -> str:
    alpha, sigma = float(level.alpha), float(level.sigma)
    ratio = math.inf if sigma == 0 else log_snr(level)
    return f"t = {fraction:.0%} of the process   α {alpha:.3f}   σ {sigma:.3f}   log SNR {ratio:.2f}"
