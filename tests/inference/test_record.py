"""What a picture says of itself: read back as written, and refused in one line where it was damaged."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, PngImagePlugin

from darkroom.core.errors import DarkroomError
from darkroom.inference.pipeline import Pipeline
from darkroom.inference.record import Record
from tests.support.diffusion import make_sampling

SAMPLING = make_sampling("ddim", 4, 3.0, "trailing")
PLAIN = Record(
    prompts=["a small red circle", "a large blue square"],
    seeds=[3, 4],
    sampling=SAMPLING,
    batch_size=64,
    model="0.dir",
    precision="fp32",
    profile={"device": "cpu"},
    index=1,
)
BLACK = Image.new("RGB", (4, 4))
EDITED = replace(PLAIN, image=BLACK, mask=Image.new("L", (4, 4)), strength=0.5, negative_prompt="a ring", index=None)
PICTURE = torch.zeros(3, 4, 4, dtype=torch.uint8)


def texts(path: Path) -> dict[str, str]:
    with Image.open(path) as picture:
        picture.load()
        return dict(picture.text)  # type: ignore[attr-defined]


def damaged(path: Path, record: Record, **chunks: str | None) -> None:
    """Write `record` to `path` with other text chunks; None leaves one out."""
    record.save(path, PICTURE)
    info = PngImagePlugin.PngInfo()
    for key, text in {**texts(path), **{name.replace("_", ":"): text for name, text in chunks.items()}}.items():
        if text is not None:
            info.add_text(key, text)
    BLACK.save(path, pnginfo=info)


def read_plainly(path: Path) -> Record:
    """A record with its pictures as pictures, not as what Pillow calls files of them, which equal no picture."""
    record = Record.read(path)
    image, mask = (picture and picture.copy() for picture in (record.image, record.mask))
    return replace(record, image=image, mask=mask)


@pytest.mark.parametrize("record", [PLAIN, EDITED], ids=["plain", "edited"])
def test_a_record_reads_back_as_written(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    record.save(path, PICTURE)
    assert read_plainly(path) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "prompts: "),
        ({"prompts": "ab"}, "prompts: "),
        ({"prompts": ["a", 3]}, r"prompts\.1: "),
        ({"seeds": [3]}, "1 seed for 2 prompts"),
        ({"seeds": [3, -4]}, r"seeds\.1: "),
        ({"seeds": None}, "seeds: "),
        ({"index": 2}, "index = 2 of 2 pictures"),
        ({"index": -1}, "index: "),
        ({"index": "second"}, "index: "),
        ({"columns": 0}, "columns: "),
        ({"batch_size": 0}, "batch_size: "),
        ({"profile": None}, "profile: "),
        ({"profile": {"device": 1}}, r"profile\.device: "),
        ({"precision": "fp8"}, "precision: "),
        ({"height": 0}, "height: "),
        ({"negative_prompt": ["a"]}, "negative_prompt: "),
        ({"sources": []}, "sources: "),
        ({"strength": 0.5}, "of image and strength one is missing"),
        ({"sampling": None}, "sampling: "),
        ({"sampling": {"sampler": {"kind": "ddim", "eta": 0.0}}}, r"sampling\.num_inference_steps: "),
        ({"sampling": SAMPLING.model_dump() | {"sampler": {"kind": "ddim", "eta": 7.0}}}, r"sampling\.sampler\.eta: "),
        ({"sampling": SAMPLING.model_dump() | {"sampler": {"kind": "ddin"}}}, r"sampling\.sampler: "),
        ({"more": 1}, "more: "),
    ],
    ids=str,
)
def test_a_damaged_record_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    PLAIN.save(path, PICTURE)
    damaged(path, PLAIN, darkroom=json.dumps(json.loads(texts(path)["darkroom"]) | change))
    with pytest.raises(DarkroomError, match=rf"x\.png: its record is damaged \({message}.*; give the file") as caught:
        Record.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("strength", "chunks", "message"),
    [
        (None, {}, "of image and strength one is missing"),
        (1.5, {}, "strength: "),
        (float("nan"), {}, "'strength' is nan, not a finite number"),
        (0.5, {"darkroom_image": None}, "of image and strength one is missing"),
        (None, {"darkroom_image": None}, "a mask without an image"),
        (0.5, {"darkroom_image": "not base64!"}, "not base64"),
        (0.5, {"darkroom_mask": "AAAA"}, "not a picture of a known format"),
    ],
)
def test_a_record_without_its_inputs_is_refused(
    strength: float | None, chunks: dict[str, str | None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.png"
    damaged(path, replace(EDITED, strength=strength), **chunks)
    with pytest.raises(DarkroomError, match=rf"x\.png: its record is damaged \({message}"):
        Record.read(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", "[" * 100_000, '{"format": 1}'], ids=lambda text: repr(text[:12])
)
def test_what_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    damaged(path, PLAIN, darkroom=text)
    with pytest.raises(DarkroomError, match=r"x\.png: its record is damaged"):
        Record.read(path)


def test_a_record_of_another_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    damaged(path, PLAIN, darkroom='{"format": 3, "sampler": "new"}')
    with pytest.raises(DarkroomError, match="its record has format 3, not 2; install another version"):
        Record.read(path)


def test_what_fits_is_read_again_and_what_does_not_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    EDITED.save(path, PICTURE)
    size = sum(map(len, texts(path).values()))
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", size)
    EDITED.check_fits()
    assert read_plainly(path) == EDITED
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", size - 1)
    with pytest.raises(DarkroomError, match=rf"image: {size:,} bytes .* {size - 1:,} at most; give a smaller picture"):
        EDITED.check_fits()
    with pytest.raises(DarkroomError, match=r"x\.png: does not say how it was made"):
        Record.read(path)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DarkroomError, match=r"taken/x\.png: cannot be written \(.*\); give another --out"):
        PLAIN.save(tmp_path / "taken" / "x.png", PICTURE)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "pndm"])
def test_the_steps_of_a_record_are_those_it_is_told_of(sampler: Any, make: Callable[..., Pipeline]) -> None:
    pipeline = make(prediction_type="epsilon")
    record = replace(PLAIN, sampling=SAMPLING.changed(sampler=sampler), batch_size=1)
    for strength in (None, 0.0, 0.001, 0.3, 0.5, 1.0):
        asked = replace(record, strength=strength, image=None if strength is None else BLACK)
        steps: list[int] = []
        asked.redraw(pipeline, lambda step, x, x0: steps.append(step))  # noqa: B023
        assert len(steps) == asked.steps(pipeline), strength
