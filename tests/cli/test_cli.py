"""The command line, as a person uses it from the project's folder."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import darkroom
from darkroom.config.merging import complete_text
from darkroom.data.prepare import prepare
from darkroom.data.sources.scenes import Scenes
from darkroom.inference.defaults import EXAMPLE
from tests.support.settings import preparation

ROOT = Path(__file__).parents[2]
SCENES = complete_text(ROOT / "recipes" / "scenes.yaml")
Run = Callable[..., int]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with its recipes, the current one."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "params.yaml").write_text(SCENES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_is_quick_and_teaches(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; sys.argv = ['darkroom', 'generate', '--help']; from darkroom.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f'darkroom generate "{EXAMPLE}" -n 4' in done.stdout
    assert not {"torch", "mlflow", "numpy", "yaml", "PIL", "rich"} & set(done.stderr.split())
    for command in (
        "generate",
        "img2img",
        "inpaint",
        "evaluate",
        "regenerate",
        "ui",
        "serve",
        "reproduce",
        "recipe",
        "params",
        "data",
        "show",
        "doctor",
        "gc",
        "completion",
        "version",
    ):
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


def test_a_recipe_is_compared_with_the_params_file_and_with_another(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails if a difference is passed over, or the two values change places."""
    params = Path("params.yaml")
    assert run("recipe", "show", "scenes", "--diff") == 0
    assert capsys.readouterr().out == "scenes and params.yaml say the same\n"
    params.write_text(SCENES.replace("image_size: 32", "image_size: 64").replace("channels: 3", "chanels: 3"))
    assert run("recipe", "show", "scenes", "--diff") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["scenes", "params.yaml"],
        ["prepare_data.image_size", "32", "64"],
        ["prepare_data.channels", "3", "-"],
        ["prepare_data.chanels", "-", "3"],
    ]
    assert run("recipe", "show", "scenes", "mnist") == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["prepare_data.source.kind", "scenes", "torchvision"] in [line.split() for line in lines]
    assert run("recipe", "show", "scenes", "mnis") == 1
    assert "did you mean mnist?" in capsys.readouterr().err


def test_an_unknown_recipe_is_answered_with_the_nearest(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("show", "use"):
        assert run("recipe", command, "scene-quick") == 1
        assert capsys.readouterr().err == "darkroom: recipe 'scene-quick': no such recipe; did you mean scenes-quick?\n"
    assert Path("params.yaml").read_text() == SCENES


def test_outside_a_project_the_installed_recipes_are_listed_and_none_is_written(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails if params.yaml appears in whatever folder a person happens to be in."""
    monkeypatch.chdir(tmp_path)
    assert run("recipe", "list") == 0
    assert "scenes-quick" in capsys.readouterr().out
    assert run("recipe", "use", "scenes") == 1
    assert capsys.readouterr().err == (
        "darkroom: dvc.yaml: no such file here; go to the project's folder, or make one: darkroom new DIR\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_using_a_recipe_writes_it_and_says_what_it_replaced(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    params = Path("params.yaml")
    assert run("recipe", "use", "scenes-quick") == 0
    assert params.read_bytes() == complete_text(ROOT / "recipes" / "scenes-quick.yaml").encode()
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
    params.write_text(SCENES.replace("image_size: 32", "image_size: 64").replace("  kind: kl\n", "  kinder: kl\n"))
    assert run("recipe", "use", "mnist") == 0
    assert capsys.readouterr().out == (
        "params.yaml: is now the recipe mnist; it was the recipe scenes with prepare_data.image_size = 64, "
        "train_vae.kinder = 'kl', no train_vae.kind\n"
    )
    params.write_text("train_vae: [")
    assert run("recipe", "use", "mnist") == 0
    assert "it was not readable (params.yaml line 1: not valid YAML" in capsys.readouterr().out


def test_checking_params_prints_every_fault(project: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("params", "check") == 0
    assert capsys.readouterr().out == "params.yaml: sound\n"
    Path("mine.yaml").write_text(SCENES.replace("clip_norm: 1.0\n", "clip_norm: -1.0\n"))
    assert run("params", "check", "mine.yaml") == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == SCENES.count("clip_norm: 1.0\n")
    assert lines[0] == "mine.yaml: train_vae.optimizer.clip_norm = -1.0: give a number > 0 and <= 1e+06, or null"
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
    lines += "    labels: []\n"
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


def test_the_noise_process_of_a_recipe_is_shown_on_the_prepared_pictures(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("show", "forward") == 1
    said = capsys.readouterr().err
    assert said == "darkroom: data/prepared: no pictures here yet; make them with: dvc repro -s prepare_data\n"
    assert not Path("reports").exists()
    prepare(Scenes(8, 6, 2, 0, 0, 16), Path("data/prepared"), preparation())
    capsys.readouterr()
    assert run("show", "forward") == 0
    assert capsys.readouterr().out == "reports/forward.png\n"
    to_ve = ("show", "forward", "--recipe", "mnist-score-concat", "--out", "deep/ve.png")
    assert run(*to_ve) == 1
    assert "--out = deep/ve.png: there is no folder deep; make it (mkdir -p deep)" in capsys.readouterr().err
    Path("deep").mkdir()
    assert run(*to_ve) == 0
    vp, ve = (Image.open(path) for path in ("reports/forward.png", "deep/ve.png"))
    assert ve.width == vp.width
    assert ve.height > vp.height  # pictures whose noise is beyond the range are shown twice
    assert run("show", "forward", "--recipe", "mnist-score-concatt") == 1
    assert run("show", "forward", "--out", "picture.gif") == 1
    assert "--out = picture.gif: give a name that ends in .png" in capsys.readouterr().err
