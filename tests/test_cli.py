"""The command line, as a person uses it from the project's folder."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image

import darkroom
from darkroom import cli
from darkroom.core.choices import SamplerName
from darkroom.diffusion.generate import Sampling

ROOT = Path(__file__).parents[1]
SCENES = (ROOT / "recipes" / "scenes.yaml").read_text(encoding="utf-8")
Run = Callable[..., int]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with its recipes, the current one."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "recipes" / "scenes.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """darkroom ARGUMENTS -> its exit status."""

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["darkroom", *arguments])
        try:
            cli.main()
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    return call


def test_help_is_quick_and_teaches(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; sys.argv = ['darkroom', 'generate', '--help']; from darkroom.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'darkroom generate "a green star" -n 4' in done.stdout
    assert not {"torch", "mlflow", "numpy", "yaml", "PIL", "rich"} & set(done.stderr.split())
    for command in ("generate", "ui", "recipe", "params", "data", "version"):
        assert run(command, "--help") == 0
        assert "Usage: " in capsys.readouterr().out


def test_the_version_is_the_packages(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("version") == 0
    assert capsys.readouterr().out == f"darkroom {darkroom.__version__}\n"


def test_a_wrong_word_is_answered_without_a_traceback(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generat") == 2
    said = capsys.readouterr().err
    assert "generate" in said
    assert "Traceback" not in said


def test_recipes_are_listed_with_what_they_are_for(project: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipe", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(p.stem for p in (ROOT / "recipes").glob("*.yaml"))
    assert SCENES.splitlines()[0].removeprefix("# ") in "\n".join(lines)


def test_a_recipe_is_shown_as_it_is(project: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipe", "show", "scenes") == 0
    assert capsys.readouterr().out == SCENES


def test_an_unknown_recipe_is_answered_with_the_nearest(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("show", "use"):
        assert run("recipe", command, "scene-quick") == 1
        assert capsys.readouterr().err == "darkroom: recipe 'scene-quick': no such recipe; did you mean scenes-quick?\n"
    assert Path("params.yaml").read_text() == SCENES


def test_outside_the_project_there_are_no_recipes(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("recipe", "list") == 1
    assert capsys.readouterr().err == "darkroom: recipes: no recipes here; run darkroom from the project's folder\n"


def test_using_a_recipe_writes_it_and_says_what_it_replaced(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    params = Path("params.yaml")
    assert run("recipe", "use", "scenes-quick") == 0
    assert params.read_bytes() == (ROOT / "recipes" / "scenes-quick.yaml").read_bytes()
    assert capsys.readouterr().out == "params.yaml: is now the recipe scenes-quick; it was the recipe scenes\n"
    params.unlink()
    assert run("recipe", "use", "scenes") == 0
    assert capsys.readouterr().out == "params.yaml: is now the recipe scenes\n"
    assert params.read_text() == SCENES
    assert [path.name for path in sorted(project.iterdir())] == ["params.yaml", "recipes"]


def test_values_of_ones_own_are_named_when_they_are_replaced(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    params = Path("params.yaml")
    params.write_text(SCENES.replace("image_size: 32", "image_size: 64").replace("  mode: train\n", "  mood: train\n"))
    assert run("recipe", "use", "mnist") == 0
    assert capsys.readouterr().out == (
        "params.yaml: is now the recipe mnist; it was the recipe scenes with prepare_data.image_size = 64, "
        "train_vae.mood = 'train', no train_vae.mode\n"
    )
    params.write_text("train_vae: [")
    assert run("recipe", "use", "mnist") == 0
    assert "it was not readable (params.yaml line 1: not valid YAML" in capsys.readouterr().out


def test_checking_params_prints_every_fault(project: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("params", "check") == 0
    assert capsys.readouterr().out == "params.yaml: sound\n"
    Path("mine.yaml").write_text(SCENES.replace("  clip_norm: 1.0\n", "  clip_norm: -1.0\n"))
    assert run("params", "check", "mine.yaml") == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == SCENES.count("  clip_norm: 1.0\n")
    assert lines[0] == "mine.yaml: train_vae.clip_norm = -1.0: give a number > 0 and <= 1e+06"
    assert run("params", "check", "gone.yaml") == 1
    assert "gone.yaml: no such file" in capsys.readouterr().err


@pytest.fixture
def birds(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A captioned folder of two pictures, which params.yaml names as its source."""
    monkeypatch.setenv("DARKROOM_DATA", str(project / "pictures"))
    folder = project / "pictures" / "birds"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"bird {name}")
    source, rest = SCENES.split("  source:\n")[0], SCENES[SCENES.index("  image_size:") :]
    lines = "  source:\n    kind: captioned_folder\n    root: birds\n    manifest: data/manifests/birds.json\n"
    Path("params.yaml").write_text(source + lines + rest)
    return folder


def test_scanning_writes_the_manifest_and_says_what_has_changed(
    birds: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = Path("data/manifests/birds.json")

    def said() -> str:
        assert run("data", "scan") == 0
        return capsys.readouterr().out

    assert said() == "data/manifests/birds.json: 4 files, 0.0 MiB, new; commit it\n"
    first = manifest.read_bytes()
    assert sorted(json.loads(first)) == ["a.png", "a.txt", "b.png", "b.txt"]
    assert "unchanged" in said()
    assert manifest.read_bytes() == first
    (birds / "a.txt").write_text("another bird")
    (birds / "b.txt").rename(birds / "c.txt")
    assert "1 new, 1 changed, 1 gone; commit it" in said()


def test_scanning_says_what_is_in_its_way(birds: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(birds)
    assert run("data", "scan") == 1
    assert "birds: no such folder; set DARKROOM_DATA" in capsys.readouterr().err
    birds.mkdir()
    assert run("data", "scan") == 1
    assert "no files of the kind captioned_folder" in capsys.readouterr().err
    assert not Path("data/manifests/birds.json").exists()
    assert run("data", "scan", "scenes") == 1
    assert "prepare_data.source.kind = 'scenes' reads no files" in capsys.readouterr().err
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("data/manifests/birds.json", "null"))
    assert run("data", "scan", "params.yaml") == 1
    assert "prepare_data.source.manifest = null" in capsys.readouterr().err


class FakePipeline:
    """Draws a picture whose grey level is its seed."""

    asked: ClassVar[list[dict[str, Any]]] = []
    model_hash = "0123.dir"

    @classmethod
    def from_pretrained(cls, path: Path, *, device: torch.device) -> "FakePipeline":
        cls.asked.clear()
        return cls()

    def sampling(self, steps: int | None, scale: float | None, sampler: SamplerName | None) -> Sampling:
        return Sampling(sampler or "ddim", steps or 20, 4.0 if scale is None else scale, "trailing")

    def text_to_image(self, prompts: list[str], **settings: Any) -> torch.Tensor:
        self.asked.append({"prompts": prompts, **settings})
        for step in range(self.sampling(settings["num_inference_steps"], None, None).num_inference_steps):
            settings["on_step"](step, None, None)
        return torch.stack([torch.full((3, 8, 8), seed, dtype=torch.uint8) for seed in settings["seeds"]])


@pytest.fixture
def pipeline(project: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakePipeline]:
    monkeypatch.setattr(darkroom, "Pipeline", FakePipeline, raising=False)
    threads = torch.get_num_threads()
    monkeypatch.setenv("DARKROOM_THREADS", str(threads))
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    return FakePipeline


def facts(path: str) -> dict[str, str]:
    with Image.open(path) as picture:
        picture.load()
        return dict(picture.text)  # type: ignore[attr-defined]


def test_a_picture_is_named_after_its_prompt_and_says_how_it_was_made(
    pipeline: type[FakePipeline], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", "A small, red circle — above é blue square!", "--seed", "7") == 0
    path = "samples/a-small-red-circle-above-é-blue-square.png"
    assert capsys.readouterr().out == f"{path}\n"
    assert facts(path) == {
        "prompt": "A small, red circle — above é blue square!",
        "seed": "7",
        "steps": "20",
        "guidance_scale": "4.0",
        "sampler": "ddim",
        "model": "0123.dir",
        "Software": f"Darkroom {darkroom.__version__}",
    }
    with Image.open(path) as picture:
        assert picture.getpixel((0, 0)) == (7, 7, 7)
    before = Path(path).read_bytes()
    assert run("generate", "A small, red circle — above é blue square!", "--seed", "7") == 0
    assert Path(path).read_bytes() == before


def test_several_pictures_are_a_grid_and_a_file_each(
    pipeline: type[FakePipeline], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--steps", "5", "--guidance-scale", "0", "--sampler", "heun", "--out", "deep/stars.png")
    assert run("generate", "stars", "-n", "3", "--seed", "40", *options) == 0
    written = [f"deep/stars{which}.png" for which in ("-1", "-2", "-3", "")]
    assert capsys.readouterr().out.splitlines() == written
    assert [facts(path)["seed"] for path in written] == ["40", "41", "42", "40 to 42"]
    assert {facts(path)["steps"] for path in written} == {"5"}
    assert {facts(path)["guidance_scale"] for path in written} == {"0.0"}
    assert {facts(path)["sampler"] for path in written} == {"heun"}
    with Image.open("deep/stars.png") as grid:
        assert grid.size == (2 * 10 + 2, 2 * 10 + 2)
        assert [grid.getpixel(at)[0] for at in ((5, 5), (15, 5), (5, 15), (15, 15))] == [40, 41, 42, 255]
    (asked,) = pipeline.asked
    assert asked["prompts"] == ["stars"] * 3
    assert asked["guidance_scale"] == 0


def test_many_pictures_are_drawn_in_batches_with_seeds_of_their_own(pipeline: type[FakePipeline], run: Run) -> None:
    assert run("generate", "stars", "-n", "70") == 0
    assert [len(asked["seeds"]) for asked in pipeline.asked] == [64, 6]
    assert [seed for asked in pipeline.asked for seed in asked["seeds"]] == list(range(70))


def test_a_prompt_without_letters_has_a_name_too(pipeline: type[FakePipeline], run: Run) -> None:
    assert run("generate", "?!") == 0
    assert Path("samples/picture.png").exists()
    assert run("generate", "x/../../y " + "z" * 300) == 0
    assert Path(f"samples/x-y-{'z' * 56}.png").exists()


def test_what_cannot_be_drawn_is_said_in_one_line(
    pipeline: type[FakePipeline], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", "stars", "--out", "stars.jpg") == 1
    assert capsys.readouterr().err == "darkroom: --out = stars.jpg: give a name that ends in .png\n"
    Path("taken").write_text("")
    assert run("generate", "stars", "--out", "taken/stars.png") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("darkroom: taken/stars.png: cannot be written (")
    for options in (("-n", "0"), ("--steps", "0"), ("--guidance-scale", "-1"), ("--seed", "-1"), ("--sampler", "ddin")):
        assert run("generate", "stars", *options) == 2
        assert options[0] in capsys.readouterr().err


def test_without_a_pipeline_it_is_said_how_to_get_one(
    project: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DARKROOM_THREADS", str(torch.get_num_threads()))
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    assert run("generate", "stars") == 1
    assert capsys.readouterr().err.startswith("darkroom: artifacts/pipeline: no such pipeline; make it with dvc repro")
