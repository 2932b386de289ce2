"""What the studio does behind its page."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from darkroom.core.errors import DarkroomError
from darkroom.inference.record import Record
from darkroom.interop.diffusers import read_unet
from darkroom.interop.lora import FILE
from darkroom.serving.limits import EndingError, LimitError
from darkroom.serving.queueing import ending
from darkroom.studio.models import Models
from darkroom.studio.request import PageRequest, Start, mask_of
from darkroom.studio.work import Studio, prompts_in
from tests.support import adapters, pipelines, toy

PROMPT = "a small red circle"
Run = Callable[..., int]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.int64)


def test_a_file_is_what_the_command_writes(studio: Studio, two: list[Path], tmp_path: Path, run: Run) -> None:
    """Catches a record of another form: `darkroom regenerate` would not take what the page hands out, or a picture that
    depends on who draws it."""
    drawn = studio.draw(
        str(two[0]), PageRequest([PROMPT], "3-5", sampling={"num_inference_steps": 3, "sampler": "euler"})
    )
    options = ("-n", "3", "--seed", "3", "--steps", "3", "--sampler", "euler", "--no-grid")
    assert run("generate", PROMPT, *options, "--out", "x.png", "--pipeline", str(two[0])) == 0
    for i, file in enumerate(drawn.files, 1):
        assert file.read_bytes() == Path(f"x-{i}.png").read_bytes()
    assert run("regenerate", str(drawn.files[1]), "--out", "again.png", "--pipeline", str(two[0])) == 0
    assert Path("again.png").read_bytes() == drawn.files[1].read_bytes()
    assert [file.name for file in drawn.files] == [f"a-small-red-circle-seed-{seed}.png" for seed in (3, 4, 5)]


def test_an_inpainted_file_is_what_the_command_writes(studio: Studio, two: list[Path], scene: Path, run: Run) -> None:
    mask = Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 12, 12))
    mask.save("mask.png")
    drawn = studio.draw(str(two[0]), PageRequest([PROMPT], "1", start=Start(scene, 0.7, mask)))
    options = ("--seed", "1", "--strength", "0.7", "--out", "x.png", "--pipeline", str(two[0]))
    assert run("inpaint", str(scene), "mask.png", PROMPT, *options) == 0
    made, by_command = Record.read(drawn.files[0]), Record.read(Path("x.png"))
    assert made.sampling == by_command.sampling
    assert (pixels(drawn.files[0]) == pixels(Path("x.png"))).all()
    outside = np.asarray(mask) == 0
    assert (pixels(drawn.files[0])[outside] == pixels(scene)[outside]).all()


def test_made_again_it_is_identical_and_a_changed_file_is_not(studio: Studio, two: list[Path]) -> None:
    drawn = studio.draw(str(two[0]), PageRequest([PROMPT], "0, 9"))
    again = studio.again(drawn.files[1])
    assert again.identical
    assert again.file != drawn.files[1]
    assert again.file.read_bytes() == drawn.files[1].read_bytes()
    record = Record.read(drawn.files[0])
    record.save(drawn.files[0], torch.zeros(3, 16, 16, dtype=torch.uint8))
    changed = studio.again(drawn.files[0])
    assert not changed.identical
    assert "grey levels" in changed.said


def test_a_picture_with_adapters_is_not_made_again_without_them(
    studio: Studio, two: list[Path], tmp_path: Path, run: Run
) -> None:
    """It was drawn without them, with a record that lists them still."""
    file = adapters.write(
        tmp_path / FILE, adapters.random_adapters(read_unet(two[0] / "unet", torch.device("cpu"), "fp32"), None)
    )
    assert run("generate", PROMPT, "--out", "with.png", "--pipeline", str(two[0]), "--lora", str(file)) == 0
    studio.draw(str(two[0]), PageRequest([PROMPT]))
    before = set(studio.folder.rglob("*.png"))
    with pytest.raises(DarkroomError, match="other adapters than this pipeline has; darkroom regenerate"):
        studio.again(Path("with.png"))
    assert set(studio.folder.rglob("*.png")) == before


def test_a_picture_of_a_model_that_is_not_open_is_not_made_again(
    studio: Studio, make_studio: Callable[..., Studio], two: list[Path]
) -> None:
    drawn = studio.draw(str(two[1]), PageRequest([PROMPT]))
    other = make_studio()
    other.draw(str(two[0]), PageRequest([PROMPT]))
    with pytest.raises(DarkroomError, match="not open in this studio"):
        other.again(drawn.files[0])


@pytest.mark.parametrize(
    ("limits", "asked", "variable"),
    [
        ({"rows": 3}, PageRequest([PROMPT], "0-3"), "DARKROOM_SERVE_ROWS"),
        ({"rows": 3}, PageRequest([PROMPT, "a ring"], "0, 1"), "DARKROOM_SERVE_ROWS"),
        ({"steps": 4}, PageRequest([PROMPT], sampling={"num_inference_steps": 5}), "DARKROOM_SERVE_STEPS"),
        ({"pixels": 256}, PageRequest([PROMPT], width=17, height=16), "DARKROOM_SERVE_PIXELS"),
        ({"prompt_bytes": 8}, PageRequest([PROMPT]), "DARKROOM_SERVE_PROMPT_BYTES"),
        ({"prompt_bytes": 20}, PageRequest([PROMPT], negative="x" * 21), "DARKROOM_SERVE_PROMPT_BYTES"),
    ],
)
def test_the_limits_of_the_server_hold_and_are_named(
    make_studio: Callable[..., Studio], two: list[Path], limits: dict[str, float], asked: PageRequest, variable: str
) -> None:
    studio = make_studio(**limits)
    with pytest.raises(LimitError, match=variable) as refused:
        studio.draw(str(two[0]), asked)
    assert "\n" not in str(refused.value)
    assert not list(studio.folder.rglob("*.png"))


def test_a_picture_to_start_from_has_its_limits_too(
    make_studio: Callable[..., Studio], two: list[Path], scene: Path
) -> None:
    name = str(two[0])
    Image.new("RGB", (70, 70)).save("large.png")
    unfitted = PageRequest([PROMPT], start=Start(Path("large.png"), 0.5, fit=False))
    with pytest.raises(LimitError, match="DARKROOM_SERVE_PIXELS"):
        make_studio().draw(name, unfitted)
    fitted = make_studio().draw(name, PageRequest([PROMPT], start=Start(Path("large.png"), 0.5)))
    assert pixels(fitted.files[0]).shape == (16, 16, 3)
    with pytest.raises(LimitError, match="DARKROOM_SERVE_PICTURE_BYTES"):
        make_studio(picture_bytes=100).draw(name, PageRequest([PROMPT], start=Start(scene, 0.5)))


def test_a_drawing_ends_at_its_deadline_and_with_the_studio(
    make_studio: Callable[..., Studio], two: list[Path]
) -> None:
    """Catches a page that draws on after Ctrl-C, or for ever."""
    studio = make_studio(seconds=1)
    studio.models.model(str(two[0]))
    endless = PageRequest([PROMPT], sampling={"num_inference_steps": 1000})
    with pytest.raises(LimitError, match="DARKROOM_SERVE_SECONDS"):
        studio.draw(str(two[0]), endless)
    late = threading.Timer(0.3, ending.set)
    try:
        late.start()
        with pytest.raises(EndingError):
            make_studio().draw(str(two[0]), endless)
    finally:
        late.join()
        ending.clear()


def test_unknown_words_are_named_each_time(studio: Studio, two: list[Path]) -> None:
    """Not once a process, as the command does: a page is asked many times."""
    for _ in range(2):
        assert any("purple" in line for line in studio.draw(str(two[0]), PageRequest(["a purple circle"])).remarks)
    assert studio.draw(str(two[0]), PageRequest([PROMPT])).remarks == []


def test_what_made_a_picture_is_what_the_audit_says(
    studio: Studio, two: list[Path], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = studio.draw(str(two[0]), PageRequest([PROMPT]))
    with pytest.raises(DarkroomError, match=r"dvc\.yaml"):
        studio.lineage(drawn.files[0])
    Path("dvc.yaml").write_text(toy.PIPELINE)
    model = studio.models.model(str(two[0])).pipeline.model_hash
    outs = [{"path": "artifacts/pipeline", "md5": model, "size": 1}]
    made = {"cmd": "python -P stages/evaluate.py", "deps": [], "outs": outs}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"evaluate": made}}))
    said = studio.lineage(drawn.files[0])
    capsys.readouterr()
    run("audit", str(drawn.files[0]))
    assert said.strip() == capsys.readouterr().out.strip()
    assert f"drawn     {PROMPT!r}, seed 0" in said
    assert "as in dvc.lock" in said
    assert "artifacts/pipeline" in said


def test_a_mask_covers_what_was_mostly_painted() -> None:
    layer = Image.new("RGBA", (160, 160))
    layer.paste((255, 0, 0, 255), (16, 16, 48, 27))  # three pixels wide and a tenth more than a half of one high
    mask = np.asarray(mask_of([layer], (16, 16)))
    assert mask.sum() == 255 * 3
    assert (mask[2, 2:5] == 255).all() or (mask[1:3, 2:5] == 255).any()
    with pytest.raises(DarkroomError, match="nothing is painted"):
        mask_of([Image.new("RGBA", (160, 160))], (16, 16))


def test_what_can_be_chosen(two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    models = Models(two, tmp_path)
    assert models.names() == [str(folder) for folder in two]
    found = models.defaults(str(two[1]))
    assert (found.guidance_scale, found.steps, found.side, found.sampler) == (5.0, 4, 16, "ddim")
    assert set(found.prompt.split()) <= set(" ".join(pipelines.CAPTIONS).split())
    with pytest.raises(DarkroomError, match="elsewhere: is not here"):
        models.model("elsewhere")
    with pytest.raises(DarkroomError, match="no such pipeline"):
        Models([Path("nowhere")], tmp_path).check()
    with pytest.raises(DarkroomError, match="dvc repro"):
        Models([Path("artifacts/pipeline")], tmp_path).check()


def test_prompts_stand_one_a_line() -> None:
    assert prompts_in(" a ring \n\na ring\nb\n") == ["a ring", "b"]
    assert prompts_in("") == [""]
