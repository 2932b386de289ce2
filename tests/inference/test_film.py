"""Films and strips of the drawing: from noise to the picture, in one range, however the process lets noise grow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from darkroom.config.sampling import Sampling
from darkroom.inference.pipeline import Pipeline
from darkroom.view import film as films
from darkroom.view.film import Film
from darkroom.view.sheet import GUTTER, JOINT, LINE, PICTURE
from tests.support.diffusion import make_sampling

VE: dict[str, Any] = {
    "autoencoder": "identity",
    "identity_range": (0.0, 1.0),
    "kind": "none",
    "process": {"kind": "ve", "sigma": 25.0, "t_min": 1e-5},
    "prediction_type": "score",
    "sampling": make_sampling("euler", 12, 1.0, "linspace"),
}
KINDS: dict[str, dict[str, Any]] = {"latents": {}, "pixels, exploding": VE}
Make = Callable[..., Pipeline]


def drawn(pipeline: Pipeline, how: Sampling, beginning: bool = True) -> tuple[Film, NDArray[np.int64]]:
    """A film of two pictures, and the first of them (H, W, 3)."""
    prompts = ["a small red circle", "a large blue square"] if pipeline.text else ["", ""]
    film = pipeline.film(prompts, how, seeds=[0, 1] if beginning else None)
    pictures = pipeline.text_to_image(prompts, seeds=[0, 1], sampling=how, on_step=film.watch).images
    return film, np.asarray(pictures[0]).astype(np.int64)


def cells(path: Path, row: int, columns: int) -> list[NDArray[np.int64]]:
    """A row of a strip's pictures, each in its own pixels of 16 x 16."""
    made = np.asarray(Image.open(path)).astype(np.int64)
    top, left, zoom = GUTTER + LINE + row * (PICTURE + JOINT), 2 * GUTTER + PICTURE, PICTURE // 16
    lefts = [left + k * (PICTURE + JOINT) for k in range(columns)]
    return [made[top : top + PICTURE : zoom, x : x + PICTURE : zoom] for x in lefts]


@pytest.mark.parametrize("kind", KINDS)
def test_a_strip_goes_from_noise_to_the_picture(kind: str, make: Make, tmp_path: Path) -> None:
    pipeline = make(**KINDS[kind])
    film, picture = drawn(pipeline, pipeline.info.sampling.changed(num_inference_steps=12))
    film.save_strip(tmp_path / "strip.png")
    so_far, expected = cells(tmp_path / "strip.png", 0, 8), cells(tmp_path / "strip.png", 1, 8)
    assert np.array_equal(so_far[-1], picture)
    assert np.array_equal(expected[-1], picture)
    if pipeline.info.autoencoder == "identity":  # noise of ten times the range, seen with its contrast lowered
        begun = pipeline.start([0])[0].permute(1, 2, 0).numpy() * pipeline.schedule.spread
        seen = 2 * (begun / pipeline.info.scaling_factor - 0.5) / np.hypot(1, pipeline.schedule.spread)
        assert np.abs(so_far[0] - (127.5 * (seen + 1)).clip(0, 255)).max() <= 1
        assert 0.3 < np.isin(so_far[0], (0, 255)).mean() < 0.9


def test_a_film_has_no_more_frames_than_one_can_watch_and_ends_with_the_picture(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(films, "FRAMES", 5)
    pipeline = make(**VE)
    for beginning in (True, False):
        film, _ = drawn(pipeline, make_sampling("euler", 12, 1.0, "linspace"), beginning)
        film.save(tmp_path / "film.gif")
        assert film.frames == ([0, 3, 6, 9, 12] if beginning else [1, 4, 7, 9, 12])
        with Image.open(tmp_path / "film.gif") as gif:
            assert gif.n_frames == 5  # type: ignore[attr-defined]
            gif.seek(4)
            assert gif.info["duration"] == films.HOLD


def test_a_film_of_a_changed_picture_follows_the_walk_that_is_left(make: Make, tmp_path: Path) -> None:
    pipeline = make(**VE)
    how = make_sampling("euler", 8, 1.0, "linspace")
    film = pipeline.film([""], how, strength=0.5)
    pipeline.image_to_image("", Image.new("RGB", (16, 16), "gray"), strength=0.5, sampling=how, on_step=film.watch)
    assert film.steps == 4
    assert float(film.levels[0].sigma) < 9
    film.save(tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.n_frames == 4  # type: ignore[attr-defined]
