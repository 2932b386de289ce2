"""The pictures for a person to judge by: samples beside real ones, reconstructions, guidance, denoising."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from darkroom.config.sections import Evaluate
from darkroom.core.rng import generator
from darkroom.core.tensors import save_png, to_float, to_pil
from darkroom.evaluation.drawing import Drawn
from darkroom.evaluation.reconstruction import psnr
from darkroom.inference.pipeline import Pipeline
from darkroom.view.film import DENOISED
from darkroom.view.sheet import Plate, sheet, table

COLUMNS = 4


def show(
    folder: Path,
    pipeline: Pipeline,
    drawn: Mapping[str, Drawn],
    verdicts: Callable[[Drawn], Sequence[bool | None]],
    settings: Evaluate,
) -> None:
    """Write every sheet that says something of this model into `folder`.

    Pictures are chosen at random, for the first ones of a sorted folder may all be of one kind.

    Args:
        drawn: by split, test among them.
    """
    chosen = {}
    for name, pictures in drawn.items():
        order = torch.randperm(len(pictures), generator=generator(settings.seed, "shown", name))
        chosen[name] = pictures = pictures.take(order[: settings.n_grid].sort().values)
        samples(pictures, verdicts(pictures), folder / f"{'samples' if name == 'test' else name}.png")
    test = chosen["test"]
    if pipeline.info.autoencoder == "kl":
        reconstructions(pipeline, test, folder / "reconstructions.png")
    if settings.guidance_sweep and test.takes_prompts:
        sweep(pipeline, test, settings.guidance_sweep, settings.n_sweep, folder / "guidance_sweep.png")
    denoising(pipeline, test, folder / "denoising")


def samples(drawn: Drawn, verdicts: Sequence[bool | None], path: Path, real: str = "") -> None:
    """Drawn pictures, each beside the real picture of its caption, with the judges' verdict; real: what else stands
    beside them."""
    rows = zip(drawn.pairs, drawn.asked.captions, verdicts, strict=True)
    plates = [Plate([to_pil(x), to_pil(y)], caption, verdict) for (y, x), caption, verdict in rows]
    real = real or ("the real picture with this caption" if drawn.takes_prompts else "a real picture")
    judged = "   ✓ ✗ both judges, of the generated one; no mark: they differ" if {*verdicts} != {None} else ""
    save_png(path, sheet(plates, COLUMNS, f"left: generated   right: {real}{judged}"))


def reconstructions(pipeline: Pipeline, drawn: Drawn, path: Path) -> None:
    """Real pictures beside what the autoencoder makes of them."""
    several = [drawn.real] if drawn.in_size is None else [real[None] for real, _ in drawn.in_size]
    plates = []
    for images in several:
        back = pipeline.reconstruct(to_float(images))
        plates += [
            Plate([to_pil(x), to_pil(y)], f"{float(likeness):.1f} dB")
            for x, y, likeness in zip(images, back, psnr(images, back), strict=True)
        ]
    save_png(path, sheet(plates, COLUMNS, "left: real   right: reconstructed"))


def sweep(pipeline: Pipeline, drawn: Drawn, scales: Sequence[float], n: int, path: Path) -> None:
    """The first n captions, each from its own noise, at every guidance scale."""
    prompts, seeds = drawn.prompts[:n], drawn.seeds[:n]
    columns = [pipeline.text_to_image(prompts, seeds=seeds, guidance_scale=scale).images for scale in scales]
    rows = [Plate([column[i] for column in columns], caption) for i, caption in enumerate(drawn.asked.captions[:n])]
    save_png(path, table([f"guidance {scale:g}" for scale in scales], rows))


def denoising(pipeline: Pipeline, drawn: Drawn, path: Path) -> None:
    """The first few captions drawn again, as an animation, PATH.gif, and as a strip, PATH.png."""
    n = min(DENOISED, len(drawn))
    seeds = drawn.seeds[:n]
    film = pipeline.film(drawn.asked.captions[:n], pipeline.info.sampling, seeds=seeds)
    pipeline.text_to_image(drawn.prompts[:n], seeds=seeds, batch_size=n, on_step=film.watch)
    film.save(path.with_suffix(".gif"))
    film.save_strip(path.with_suffix(".png"))
