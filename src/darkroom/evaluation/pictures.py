"""The pictures a person judges by: samples beside real ones, reconstructions, guidance, denoising."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from darkroom.core.rng import generator
from darkroom.core.tensors import save_png, to_float, to_pil
from darkroom.evaluation.drawing import Drawn
from darkroom.evaluation.reconstruction import psnr
from darkroom.inference.film import DENOISED, Film
from darkroom.inference.pipeline import Pipeline
from darkroom.view.sheet import Plate, sheet, table

COLUMNS = 4


def show(
    folder: Path,
    pipeline: Pipeline,
    drawn: Mapping[str, Drawn],
    verdicts: Callable[[Drawn], Sequence[bool | None]],
    *,
    seed: int,
    n_grid: int,
    guidance_sweep: Sequence[float],
    n_sweep: int,
) -> None:
    """Write all pictures that the model gives occasion for into `folder`; `drawn` by split, test among them.

    Of each split those that `seed` picks by lot: the first ones of a sorted folder may be all of one kind.
    """
    shown = {name: pictures.take(_lot(len(pictures), n_grid, seed, name)) for name, pictures in drawn.items()}
    for name, pictures in shown.items():
        samples(pictures, verdicts(pictures), folder / f"{'samples' if name == 'test' else name}.png")
    test = shown["test"]
    if pipeline.info.autoencoder == "kl":
        reconstructions(pipeline, test.real, folder / "reconstructions.png")
    if guidance_sweep and test.asked:
        sweep(pipeline, test, guidance_sweep, n_sweep, folder / "guidance_sweep.png")
    denoising(pipeline, test, folder / "denoising")


def _lot(n: int, most: int, seed: int, split: str) -> Tensor:
    """Which of n drawn pictures are shown, in order."""
    return torch.randperm(n, generator=generator(seed, "shown", split))[:most].sort().values


def samples(drawn: Drawn, verdicts: Sequence[bool | None], path: Path) -> None:
    """What was drawn, each beside the real picture of its caption, if any, with the judges' verdict."""
    shown = zip(drawn.pictures, drawn.real, drawn.captions, verdicts, strict=True)
    plates = [Plate([to_pil(x), to_pil(real)], caption, verdict) for x, real, caption, verdict in shown]
    heading = "left: generated   right: " + ("the real picture with this caption" if drawn.asked else "a real picture")
    judged = "   ✓ ✗ both judges, of the generated one; no mark: they differ" if {*verdicts} != {None} else ""
    save_png(path, sheet(plates, COLUMNS, heading + judged))


def reconstructions(pipeline: Pipeline, images: Tensor, path: Path) -> None:
    """Pictures uint8 (N, C, H, W) beside what the autoencoder makes of them."""
    back = pipeline.reconstruct(to_float(images))
    plates = [
        Plate([to_pil(x), to_pil(y)], f"{float(likeness):.1f} dB")
        for x, y, likeness in zip(images, back, psnr(images, back), strict=True)
    ]
    save_png(path, sheet(plates, COLUMNS, "left: real   right: reconstructed"))


def sweep(pipeline: Pipeline, drawn: Drawn, scales: Sequence[float], n: int, path: Path) -> None:
    """The first n captions, each from its own noise, at every guidance scale."""
    prompts, seeds = drawn.prompts[:n], drawn.seeds[:n]
    columns = [pipeline.text_to_image(prompts, seeds=seeds, guidance_scale=scale) for scale in scales]
    rows = [Plate([column[i] for column in columns], caption) for i, caption in enumerate(drawn.captions[:n])]
    save_png(path, table([f"guidance {scale:g}" for scale in scales], rows))


def denoising(pipeline: Pipeline, drawn: Drawn, path: Path) -> None:
    """The first few captions drawn again, as an animation, PATH.gif, and as a strip, PATH.png."""
    n = min(DENOISED, len(drawn))
    film = Film(pipeline, drawn.captions[:n], pipeline.info.sampling, start=pipeline.start(drawn.seeds[:n]))
    pipeline.text_to_image(drawn.prompts[:n], seeds=drawn.seeds[:n], batch_size=n, on_step=film.watch)
    film.save(path.with_suffix(".gif"))
    film.save_strip(path.with_suffix(".png"))
