"""What is drawn has limits: pictures, batches and files, looked at before anything is drawn."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image

from darkroom.core.errors import DarkroomError
from darkroom.inference.options import most_at_once
from darkroom.inference.pipeline import Pipeline
from darkroom.inference.record import Record
from tests.support.diffusion import make_sampling

Make = Callable[..., Pipeline]
ONE = Record(
    prompts=["a small red circle"],
    seeds=[3],
    sampling=make_sampling("ddim", 4, 3.0, "trailing"),
    batch_size=64,
    model="0.dir",
    precision="fp32",
    profile={"device": "cpu"},
    index=0,
)
MANY = replace(ONE, prompts=["x"] * 64, seeds=[0] * 64, index=None)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (replace(ONE, height=200_000), "height = 200,000, width = 16: positions of 2 x 2 pixels = 800,000: more than"),
        (replace(ONE, height=200_000, width=200_000), "height x width = 40,000,000,000: more than 4,194,304 pixels"),
        (replace(MANY, height=512, width=512), "batch_size = 64: positions = 4,194,304: more than 1,048,576"),
        (replace(ONE, scale=1000), "scale = 1,000: size of the file = 256,000,000: more than 67,108,864 pixels"),
        (replace(MANY, scale=100), "64 pictures of 16 x 16 pixels, scale = 100: size of the file"),
        (replace(MANY, sampling=replace(ONE.sampling, num_inference_steps=10**7)), "work = 163,840,000,000: more than"),
    ],
    ids=str,
)
def test_a_record_that_asks_for_too_much_is_not_drawn(record: Record, message: str, make: Make) -> None:
    """Catches: a picture that fills memory only after minutes of drawing."""
    with pytest.raises(DarkroomError) as caught:
        record.check_work(make())
    assert message in str(caught.value)


def test_usual_records_are_drawn(make: Make) -> None:
    for record in (ONE, MANY, replace(ONE, height=512, width=512), replace(MANY, scale=8)):
        record.check_work(make())
    replace(ONE, height=1000, scale=64).check_work(make(), one_file=False)


def test_limits_can_be_raised_by_whoever_draws(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    large = replace(ONE, height=1024, width=1024)
    with pytest.raises(DarkroomError, match=r"draw a smaller picture, or raise DARKROOM_MAX_POSITIONS$"):
        large.check_work(make())
    monkeypatch.setenv("DARKROOM_MAX_POSITIONS", "262144")
    large.check_work(make())


def test_the_pipeline_itself_keeps_to_them(make: Make) -> None:
    """Catches: limits that only the command line knows."""
    for height, what in ((200_000, "positions"), (10**9, "height x width")):
        with pytest.raises(DarkroomError, match=what):
            make().text_to_image("x", height=height)
    with pytest.raises(DarkroomError, match="num_inference_steps = 1,000,000,000: more than 10,000"):
        make().text_to_image("x", num_inference_steps=10**9)
    with pytest.raises(DarkroomError, match="height x width"):
        make().image_to_image("x", Image.new("L", (3000, 3000)))


def test_large_pictures_are_drawn_in_smaller_batches() -> None:
    assert [most_at_once((side, side), 8) for side in (512, 1024, 2048)] == [256, 64, 16]
