"""Comparisons and films behind the page."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.config.sampling import SAMPLERS
from darkroom.core.errors import DarkroomError
from darkroom.inference.record import Record
from darkroom.serving.limits import LimitError
from darkroom.studio.comparison import compare, differences, ways_of
from darkroom.studio.films import MOMENTS, denoising, noising
from darkroom.studio.page.html import grid, note
from darkroom.studio.request import PageRequest
from darkroom.studio.work import Studio

ASKED = PageRequest(["a small red circle", "a large blue square"], "0, 4")


def test_each_way_draws_the_same_prompts_and_seeds(studio: Studio, two: list[Path]) -> None:
    """Catches columns that differ in more than what is compared."""
    names = [str(folder) for folder in two]
    found = compare(studio, ways_of("models", names, ""), ASKED)
    assert found.labels == names
    assert found.rows == [(prompt, seed) for prompt in ASKED.prompts for seed in (0, 4)]
    for name, files in zip(names, found.files, strict=True):
        alone = studio.draw(name, ASKED).files
        assert [file.read_bytes() for file in files] == [file.read_bytes() for file in alone]
        assert [Record.read(file).seeds[Record.read(file).index or 0] for file in files] == [0, 4, 0, 4]


def test_differences_are_of_the_first_column_and_amplified(studio: Studio, two: list[Path]) -> None:
    found = compare(studio, ways_of("guidance_scale", [1.0, 7.0], str(two[0])), ASKED)
    apart = differences(found, 3)
    first, second = apart[0][0], apart[1][0]
    assert first is not None
    assert second is not None
    assert (first.mean, first.most) == (0, 0)
    true = (found.pictures[1][0].int() - found.pictures[0][0].int()).abs()
    assert second.most == int(true.max()) > 0
    assert second.mean == pytest.approx(float(true.float().mean()))
    with Image.open(second.file) as picture:
        amplified = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert (amplified == (3 * true).clamp(max=255)).all()


@pytest.mark.parametrize(("axis", "values"), [("sampler", ["ddim", "ode"]), ("num_inference_steps", [2.0, 3.0])])
def test_samplers_and_steps_can_be_compared(studio: Studio, two: list[Path], axis: str, values: list[object]) -> None:
    found = compare(studio, ways_of(axis, values, str(two[0])), PageRequest(["a small red circle"]))
    assert len(found.files) == 2


def test_a_sampler_that_goes_to_both_ends_gets_the_spacing_that_does(two: list[Path]) -> None:
    """Nobody could choose it here, and the model's own would be refused."""
    ways = ways_of("sampler", ["ddim", *(name for name in SAMPLERS.classes if SAMPLERS.of(name).needs_both_ends)], "")
    assert len(ways) > 1, "no sampler needs both ends: the law looks at nothing"
    assert "spacing" not in ways[0].sampling
    assert {way.sampling["spacing"] for way in ways[1:]} == {"linspace"}


def test_too_few_and_too_much_is_refused(studio: Studio, two: list[Path]) -> None:
    name = str(two[0])
    for values in ([], [1.0], [float(i) for i in range(9)]):
        with pytest.raises(DarkroomError, match="choose from two to 8"):
            ways_of("guidance_scale", values, name)
    with pytest.raises(LimitError, match="DARKROOM_SERVE_ROWS"):
        compare(studio, ways_of("guidance_scale", [1.0, 2.0], name), PageRequest(["a"], "0-39"))
    with pytest.raises(DarkroomError, match="elsewhere: "):
        compare(studio, ways_of("models", [name, "elsewhere"], ""), ASKED)


def test_what_people_wrote_is_not_obeyed(studio: Studio, two: list[Path]) -> None:
    evil = "<img src=x onerror=alert(1)>"
    found = compare(studio, ways_of("guidance_scale", [1.0, 2.0], str(two[0])), PageRequest([evil]))
    assert "<img src=x" not in grid(found, differences(found, 1)) + note([evil])


def test_a_film_ends_with_the_picture(studio: Studio, two: list[Path]) -> None:
    asked = PageRequest(["a small red circle"], "5")
    film = denoising(studio, str(two[0]), asked)
    assert len(film.frames) == 5, "four steps, and what they begin with"
    drawn = studio.draw(str(two[0]), asked).files[0]
    with Image.open(film.frames[-1].files[0][1]) as last, Image.open(drawn) as picture:
        assert (np.asarray(last) == np.asarray(picture)).all()
    assert film.picture is not None
    assert film.picture.read_bytes() == drawn.read_bytes(), "with the same record"
    assert film.gif is not None
    assert film.gif.stat().st_size > 0


def test_the_process_goes_from_the_picture_to_noise(studio: Studio, two: list[Path], tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    film = noising(studio, str(two[0]), tmp_path / "red.png")
    assert len(film.frames) == MOMENTS + 1
    assert "α 1.000   σ 0.000" in film.frames[0].said
    spread = []
    for frame in (film.frames[0], film.frames[MOMENTS // 2], film.frames[-1]):
        with Image.open(frame.files[0][1]) as picture:
            spread.append(float(np.asarray(picture).std()))
    assert spread[0] != spread[-1]
