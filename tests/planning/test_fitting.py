"""`darkroom recipe fit`: what it counts is what the stages find. Faults caught: a recipe for other data's sizes, whose
figures six stages later need more pictures than there are; a fitted file that differs when fitted again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from darkroom.config.edit import edited
from darkroom.config.merging import complete_text
from darkroom.config.params import load, problems
from darkroom.data.manifest import manifest_of
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.planning import demands

ROOT = Path(__file__).parents[2]
N = 90
Run = Callable[..., int]


def draw(folder: Path, n: int) -> None:
    folder.mkdir(parents=True)
    for i in range(n):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"bird number {i} of a {'large ' * (i % 4)}flock")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with its recipes, and N captioned pictures at birds/tame below its data root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path / "root"))
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    draw(tmp_path / "root" / "birds" / "tame", N)
    return tmp_path


def test_the_fitted_recipe_asks_for_just_what_there_is(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("recipe", "fit", "captioned", "--root", "birds/tame", "--minutes", "10") == 0
    said = capsys.readouterr().out
    assert f"birds/tame: {N} captioned pictures" in said
    assert problems() == []
    p = load()
    info = prepare(CaptionedFolder("birds/tame"), "data/prepared", p.prepare_data)
    assert demands.unmet(p, Prepared.open("data/prepared")) == []
    assert p.evaluate.n_test == info.splits["test"]
    assert p.train_unet.held_out == info.splits["validation"]
    assert f"evaluate.n_test = {info.splits['test']}: all of test" in said


def test_fitting_again_changes_nothing_and_more_minutes_are_more_steps(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("recipe", "fit", "captioned", "--root", "birds/tame", "--minutes", "10") == 0
    first = Path("params.yaml").read_bytes()
    few: Any = load()
    capsys.readouterr()
    assert run("recipe", "fit", "captioned", "--minutes", "10") == 0, "the root is that of params.yaml"
    assert Path("params.yaml").read_bytes() == first
    assert "as before" in capsys.readouterr().out
    assert run("recipe", "fit", "captioned", "--minutes", "40") == 0
    more: Any = load()
    assert more.train_vae.steps > 2 * few.train_vae.steps
    assert more.setup_text_encoder.steps == few.setup_text_encoder.steps
    assert more.train_unet.steps == few.train_unet.steps, "so few pictures are known by heart before"
    assert "min unused: more pictures would help more" in capsys.readouterr().out


def test_what_cannot_be_fitted_says_so_and_writes_nothing(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(project / "root" / "few", 20)
    for arguments, message in (
        (("scenes",), "recipe 'scenes' is of fixed size; darkroom recipe fit captioned"),
        (("captioned", "--root", "few"), "few: 20 pictures are too few"),
        (("captioned", "--root", "gone"), "no such folder; set DARKROOM_DATA"),
        (("captioned", "--root", "birds/tame", "--minutes", "1.5"), "--minutes 1.5 leaves train_vae 0 steps"),
    ):
        assert run("recipe", "fit", *arguments) == 1
        assert message in capsys.readouterr().err
    assert not Path("params.yaml").exists()


def test_the_manifest_follows_from_the_root(project: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipe", "fit", "captioned", "--root", "birds/tame") == 0
    assert run("data", "scan") == 0
    assert f"data/manifests/birds-tame.json: {2 * N} files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("root", "manifest", "file"),
    [
        ("birds", "auto", "data/manifests/birds.json"),
        ("./birds/wild/", "auto", "data/manifests/birds-wild.json"),
        ("/mnt/disk/birds", "auto", "data/manifests/birds.json"),
        (".", "auto", "data/manifests/data.json"),
        ("birds", "data/manifests/other.json", "data/manifests/other.json"),
        ("birds", None, None),
    ],
)
def test_which_manifest_a_source_means(root: str, manifest: str | None, file: str | None) -> None:
    assert manifest_of(root, manifest) == (Path(file) if file else None)


def test_a_value_is_replaced_in_its_own_section_and_comments_stay() -> None:
    file = ROOT / "recipes" / "captioned.yaml"
    text = complete_text(file)
    changes = {"train_unet.steps": 7, "train_evaluator.text.max_length": 9, "prepare_data.source.root": "it's: # odd"}
    wanted = yaml.safe_load(text)
    for key, value in changes.items():
        text = edited(file, text, tuple(key.split(".")), value)
        *sections, last = key.split(".")
        inner = wanted
        for section in sections:
            inner = inner[section]
        inner[last] = value
    assert yaml.safe_load(text) == wanted
    assert "# your pictures below DARKROOM_DATA" in text


def test_a_hint_names_a_recipe_that_shows_the_key(project: Path) -> None:
    """It named scenes for keys that scenes does not have."""
    Path("params.yaml").write_text(
        complete_text(ROOT / "recipes" / "captioned.yaml").replace("    root: captioned", "    #")
    )
    assert problems() == [
        "params.yaml: prepare_data.source.root is missing; add it (darkroom recipe show captioned has one)"
    ]
    text = complete_text(ROOT / "recipes" / "photos-ddpm.yaml")
    Path("params.yaml").write_text("\n".join(line for line in text.split("\n") if not line.startswith("    caption:")))
    (hint,) = problems()
    command = hint.split("(")[1].split(" has one")[0]
    assert command.startswith("darkroom recipe show ")
    named = yaml.safe_load(complete_text(ROOT / "recipes" / f"{command.split()[-1]}.yaml"))
    assert named["prepare_data"]["source"]["caption"]
    assert named["prepare_data"]["source"]["kind"] == "image_folder"
