"""The drawing commands, on a pipeline of tiny random networks."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

import darkroom
from darkroom.inference.defaults import INPAINT_STRENGTH
from darkroom.inference.record import Record
from tests.support import pipelines

Run = Callable[..., int]
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(pipelines.assembled(tmp_path_factory.mktemp("drawn")))


@pytest.fixture
def place(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the trained pipeline where the commands look for it, a picture and a mask; the current one."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "pipeline").symlink_to(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 6:14] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_THREADS", str(torch.get_num_threads()))
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    before = torch.get_deterministic_debug_mode()
    yield tmp_path
    torch.set_deterministic_debug_mode(before)


def facts(path: Path | str) -> dict[str, str]:
    with Image.open(path) as picture:
        picture.load()
        return dict(picture.text)  # type: ignore[attr-defined]


def pixels(path: Path | str) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def test_a_picture_is_named_after_its_prompt_and_says_how_it_was_made(place: Path, run: Run, capsys: Said) -> None:
    assert run("generate", "A small, red circle — above é blue square!", "--seed", "7") == 0
    path = "samples/a-small-red-circle-above-é-blue-square.png"
    assert capsys.readouterr().out == f"{path}\n"
    found = facts(path)
    record = json.loads(found.pop("darkroom"))
    assert len(found.pop("model")) == 32 + len(".dir")
    assert found == {
        "prompt": "A small, red circle — above é blue square!",
        "seed": "7",
        "steps": "4",
        "guidance_scale": "3.0",
        "sampler": "ddim",
        "Software": f"Darkroom {darkroom.__version__}",
    }
    assert record["profile"]["threads"] == str(torch.get_num_threads())
    assert str(place) not in json.dumps(record)
    before = Path(path).read_bytes()
    assert run("generate", "A small, red circle — above é blue square!", "--seed", "7") == 0
    assert Path(path).read_bytes() == before


def test_several_pictures_are_a_grid_and_a_file_each(place: Path, run: Run, capsys: Said) -> None:
    options = ("--steps", "2", "--guidance-scale", "0", "--sampler", "heun", "--out", "deep/stars.png")
    Path("deep").mkdir()
    assert run("generate", "stars", "-n", "3", "--seed", "40", *options, "--gif", "deep/stars.gif") == 0
    written = [f"deep/stars{which}" for which in ("-1.png", "-2.png", "-3.png", ".png", ".gif")]
    assert capsys.readouterr().out.splitlines() == written
    assert [facts(path)["seed"] for path in written[:4]] == ["40", "41", "42", "40 to 42"]
    assert {facts(path)["steps"] for path in written[:4]} == {"2"}
    assert {facts(path)["guidance_scale"] for path in written[:4]} == {"0.0"}
    grid = pixels("deep/stars.png")
    second = pixels("deep/stars-2.png").repeat(8, 0).repeat(8, 1)  # of 16 x 16 pixels, so that one can see them
    assert np.array_equal(grid[16 : 16 + 128, 16 + 132 : 16 + 132 + 128], second)
    assert (grid[16 + 132 : 16 + 132 + 128, 16 + 132 : 16 + 132 + 128] == 250).any()
    with Image.open("deep/stars.gif") as film:
        assert film.n_frames == 2  # type: ignore[attr-defined]


def test_prompts_from_a_file(place: Path, run: Run, capsys: Said) -> None:
    Path("captions.txt").write_text("a small red circle\n\n  a large blue square \n")
    assert run("generate", "--prompts", "captions.txt", "-n", "2", "--steps", "1", "--no-grid", "--out", "x.png") == 0
    assert capsys.readouterr().out.split() == [f"x-{i}.png" for i in (1, 2, 3, 4)]
    assert [facts(f"x-{i}.png")["prompt"] for i in (1, 2, 3, 4)] == ["a small red circle"] * 2 + [
        "a large blue square"
    ] * 2
    assert [facts(f"x-{i}.png")["seed"] for i in (1, 2, 3, 4)] == ["0", "1", "2", "3"]


def test_a_prompt_without_letters_has_a_name_too(place: Path, run: Run) -> None:
    assert run("generate", "?!", "--steps", "1") == 0
    assert Path("samples/picture.png").exists()
    assert run("generate", "x/../../y " + "z" * 300, "--steps", "1") == 0
    assert Path(f"samples/x-y-{'z' * 56}.png").exists()


COMMANDS = {
    "generate": ("generate", "a red circle", "--negative-prompt", "a square", "--height", "20", "--sampler", "ddpm"),
    "img2img": ("img2img", "scene.png", "a red circle", "--strength", "0.55", "--spacing", "leading"),
    "inpaint": ("inpaint", "scene.png", "mask.png", "a red circle", "--sampler", "ddim,eta=0.5"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_picture_is_made_again_to_the_byte_without_what_it_was_made_from(
    command: str, place: Path, run: Run, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.inference.request.BATCH_SIZE", 2)
    assert run(*COMMANDS[command], "-n", "3", "--out", "x.png") == 0
    Path("scene.png").unlink()
    Path("mask.png").unlink()
    for name in ("x", "x-1", "x-3"):
        assert run("regenerate", f"{name}.png") == 0
        said = capsys.readouterr()
        assert said.out.splitlines()[-1] == f"{name}-again.png: the same file, to the byte"
        assert "profile" not in said.err
        assert Path(f"{name}-again.png").read_bytes() == Path(f"{name}.png").read_bytes()


def test_under_another_profile_it_is_said_what_differs(
    place: Path, run: Run, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("generate", "a red circle", "--out", "x.png") == 0
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "1")
    assert run("regenerate", "x.png", "--out", "y.png") == 0
    said = capsys.readouterr()
    assert "darkroom: another execution profile: deterministic: false -> true\n" in said.err
    assert said.out.splitlines()[-1].startswith("y.png: ")
    assert np.abs(pixels("x.png") - pixels("y.png")).max() <= 1


def test_another_pipeline_is_refused_naming_both(place: Path, run: Run, capsys: Said) -> None:
    assert run("generate", "a red circle", "--steps", "1", "--out", "x.png") == 0
    shutil.copytree("artifacts/pipeline", "other")
    changed = Path("other/provenance.json")
    changed.write_text(changed.read_text() + " ")
    assert run("regenerate", "x.png", "--pipeline", "other") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert facts("x.png")["model"] in said
    assert said.startswith("darkroom: x.png: was drawn by the pipeline ")
    assert "but other is " in said
    assert not Path("x-again.png").exists()


def test_inpainting_leaves_what_is_not_masked(place: Path, run: Run) -> None:
    assert run("inpaint", "scene.png", "mask.png", "a red circle", "--out", "x.png") == 0
    changed = (pixels("x.png") != pixels("scene.png")).any(axis=2)
    wanted = pixels("mask.png") > 0
    assert not changed[~wanted].any()
    assert changed[wanted].mean() > 0.9


def test_a_mask_may_be_painted_on_nothing(place: Path, run: Run) -> None:
    levels = pixels("mask.png").astype(np.uint8)
    Image.fromarray(np.dstack([np.full((16, 16, 3), 255, np.uint8), levels])).save("painted.png")
    for mask in ("mask", "painted"):
        assert run("inpaint", "scene.png", f"{mask}.png", "a red circle", "--out", f"by-{mask}.png") == 0
    assert np.array_equal(pixels("by-mask.png"), pixels("by-painted.png"))


def test_the_steps_that_are_taken_are_counted(place: Path, run: Run, capsys: Said) -> None:
    assert run("img2img", "scene.png", "a red circle", "--strength", "0.5", "-n", "2", "--out", "x.png") == 0
    assert "draw: 2/2 steps" in capsys.readouterr().err
    assert run("regenerate", "x-2.png") == 0
    assert "regenerate: 2/2 steps" in capsys.readouterr().err


def test_options_are_taken_together(place: Path, run: Run, capsys: Said) -> None:
    folder: Path = pipelines.assembled(Path("other"), prediction_type="epsilon")
    said = json.loads((folder / "pipeline.json").read_text())
    said["sampling"] |= {"sampler": {"kind": "euler"}, "karras": True}
    (folder / "pipeline.json").write_text(json.dumps(said))
    command = ("generate", "stars", "--pipeline", str(folder), "--out", "x.png", "--sampler", "pndm")
    assert run(*command) == 1
    assert "karras = True does not go with sampler.kind = 'pndm'" in capsys.readouterr().err
    assert run(*command, "--no-karras") == 0
    sampling = Record.read(Path("x.png")).sampling
    assert (sampling.sampler.kind, sampling.karras) == ("pndm", False)


def test_the_noise_of_ddpm_is_chosen(place: Path, run: Run) -> None:
    for variance in ("beta", "beta_tilde"):
        command = ("generate", "stars", "--sampler", f"ddpm,variance={variance}", "--out", f"{variance}.png")
        assert run(*command) == 0
        assert Record.read(Path(f"{variance}.png")).sampling.sampler.model_dump()["variance"] == variance
    assert not np.array_equal(pixels("beta.png"), pixels("beta_tilde.png"))


def test_an_equation_says_how_often_it_asked_the_network(place: Path, run: Run, capsys: Said) -> None:
    command = ("generate", "stars", "--sampler", "ode,tolerance=0.3", "--out", "x.png")
    assert run(*command) == 1
    assert "which goes from the last time to the first; use linspace" in capsys.readouterr().err
    assert run(*command, "--spacing", "linspace", "-n", "2") == 0
    found = re.search(r"darkroom: ode: (\d+) evaluations of the network\n", capsys.readouterr().err)
    assert found is not None
    assert int(found[1]) > 4
    assert Record.read(Path("x.png")).sampling.sampler.model_dump()["tolerance"] == 0.3


def test_the_size_of_corrections_is_chosen(place: Path, run: Run, capsys: Said) -> None:
    """Fails if an option is lost on its way from the command line to the picture's record."""
    assert run("generate", "stars", "--sampler", "predictor_corrector,snr=0.1", "--out", "x.png") == 0
    assert Record.read(Path("x.png")).sampling.sampler.model_dump()["snr"] == 0.1
    assert "evaluations" not in capsys.readouterr().err


def test_a_picture_that_a_png_cannot_carry_is_refused_before_drawing(
    place: Path, run: Run, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1000)
    assert run("img2img", "scene.png", "a red circle", "--out", "x.png") == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("darkroom: image: ")
    assert said.endswith("1,000 at most; give a smaller picture")
    assert not Path("x.png").exists()


def test_a_place_is_refused_before_drawing(place: Path, run: Run, capsys: Said) -> None:
    assert run("generate", "stars", "--steps", "1", "--out", "x.png") == 0
    write_bad_inputs()
    capsys.readouterr()
    for command in ("generate stars --gif taken/f.gif", "regenerate x.png --out taken/deep/x.png"):
        assert run(*command.split()) == 1
        (said,) = capsys.readouterr().err.splitlines()  # and no progress
        assert said.endswith(": taken is a file, not a folder; give another path")


def write_bad_inputs() -> None:
    Path("text.png").write_text("no picture")
    Path("torn.png").write_bytes(Path("scene.png").read_bytes()[:200])
    Path("empty.txt").write_text("\n \n")
    Path("taken").write_text("")
    Path("folder.png").mkdir(exist_ok=True)
    Image.new("L", (8, 16)).save("small.png")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("generate stars --out stars.jpg", "--out = stars.jpg: give a name that ends in .png"),
        ("generate stars --out taken/stars.png", "--out = taken/stars.png: taken is a file, not a folder"),
        ("generate stars --out folder.png", "--out = folder.png: is a folder; give another name"),
        ("generate stars --gif taken/f.gif", "--gif = taken/f.gif: taken is a file, not a folder"),
        (
            "generate stars --out rigns/stars.png",
            "--out = rigns/stars.png: there is no folder rigns; make it (mkdir -p",
        ),
        ("generate stars --gif rigns/f.gif", "--gif = rigns/f.gif: there is no folder rigns; make it (mkdir -p rigns)"),
        ("export taken/model", "taken: File exists; fix that or name another path"),
        ("generate stars --gif film.png", "--gif = film.png: give a name that ends in .gif"),
        ("generate stars --pipeline gone", "gone: no such pipeline; make it with dvc repro"),
        ("generate --steps 2", "prompt: give either PROMPT or --prompts FILE"),
        ("generate stars --prompts empty.txt", "prompt: give either PROMPT or --prompts FILE"),
        ("generate --prompts empty.txt", "--prompts = empty.txt: holds no prompt; write one a line"),
        ("generate --prompts gone.txt", "--prompts = gone.txt: cannot be read (No such file or directory)"),
        ("generate stars --steps 1001", "num_inference_steps = 1001: give 1 to 1000"),
        ("generate stars --sampler pndm", "sampler = 'pndm': extrapolates the network's own output"),
        ("generate stars --sampler heun,eta=0.5", "sampler heun: eta = 0.5: unknown; there are kind"),
        ("generate stars --sampler ddin", "sampler = 'ddin': unknown; choose from ddim, ddpm"),
        ("generate stars --sampler ddim,eta=2", "sampler ddim: eta = 2: give less than or equal to 1"),
        ("img2img gone.png stars", "gone.png: cannot be read (No such file or directory); name a picture"),
        ("img2img text.png stars", "text.png: not a picture of a known format"),
        ("img2img torn.png stars", "torn.png: truncated picture; name another picture"),
        ("img2img scene.png stars --strength 1.5", "strength = 1.5: give a number from 0"),
        ("img2img scene.png stars --strength nan", "strength = nan: give a number from 0"),
        ("img2img scene.png stars --strength 0 --gif f.gif", "--gif = f.gif: --strength 0 takes no step,"),
        ("inpaint scene.png mask.png stars --strength 0 --gif f.gif", "--gif = f.gif: --strength 0 takes no"),
        ("inpaint scene.png gone.png stars", "gone.png: cannot be read (No such file or directory)"),
        (
            "inpaint scene.png small.png stars",
            "mask: 8 x 16 pixels for a picture of 16 x 16; give one of the same size",
        ),
        ("regenerate scene.png", "scene.png: does not say how it was made; give a PNG as darkroom wrote it"),
        ("regenerate gone.png", "gone.png: cannot be read"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    command: str, message: str, place: Path, run: Run, capsys: Said
) -> None:
    write_bad_inputs()
    assert run(*command.split()) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith(f"darkroom: {message}")
    assert "Traceback" not in said.err


@pytest.mark.parametrize("options", ["-n 0", "--steps 0", "--guidance-scale -1", "--seed -1"])
def test_what_an_option_does_not_take_is_said(options: str, place: Path, run: Run, capsys: Said) -> None:
    assert run("generate", "stars", *options.split()) == 2
    assert options.split()[0] in capsys.readouterr().err


def test_a_damaged_record_is_refused(place: Path, run: Run, capsys: Said) -> None:
    from PIL.PngImagePlugin import PngInfo

    for text in ("{", "{}", '{"format": 3, "sampling": 3}'):
        info = PngInfo()
        info.add_text("darkroom", text)
        Image.new("RGB", (4, 4)).save("x.png", pnginfo=info)
        assert run("regenerate", "x.png") == 1
        assert "x.png: its record is damaged" in capsys.readouterr().err


def test_a_record_reads_back_as_it_was_written(place: Path, run: Run) -> None:
    assert run(*COMMANDS["inpaint"], "--out", "x.png") == 0
    record = Record.read(Path("x.png"))
    assert record.index == 0
    assert record.strength == INPAINT_STRENGTH
    assert {name: source["name"] for name, source in record.sources.items()} == {
        "image": "scene.png",
        "mask": "mask.png",
    }
    assert record.image is not None
    assert record.mask is not None
    assert np.array_equal(np.asarray(record.image), pixels("scene.png"))
    assert np.array_equal(np.asarray(record.mask), pixels("mask.png"))


def test_what_the_model_was_never_shown_cannot_be_asked_for(place: Path, run: Run, capsys: Said) -> None:
    of_classes, of_nothing = (str(pipelines.assembled(place / kind, kind=kind)) for kind in ("class", "none"))
    classes = "'nine' is not a class of this model; its classes: zero, one, two"
    assert run("generate", "nine", "--pipeline", of_classes) == 1
    assert capsys.readouterr().err == f"darkroom: prompt {classes}\n"
    assert run("generate", "one", "--negative-prompt", "nine", "--pipeline", of_classes) == 1
    assert classes in capsys.readouterr().err
    assert run("generate", "a seven", "--pipeline", of_nothing) == 1
    assert (
        "prompt 'a seven': this model was trained without captions; give the empty prompt ''" in capsys.readouterr().err
    )
    assert not (place / "samples").exists()
