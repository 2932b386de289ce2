"""`darkroom new`: a project around the installed package, and what its stages know of the code that they run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

import darkroom
from darkroom.config import recipes
from darkroom.config.stage_spec import stage_specs
from darkroom.core.artifact import files_of
from darkroom.core.errors import DarkroomError
from darkroom.project.code_files import CodeFile, check_installed, file_of, outdated, recorded_stages, sync
from darkroom.runner.new_project import Wish, new
from tests.support.imports import CODE, ROOT, STAGES
from tests.support.projects import environment_of

Run = Callable[..., int]
Said = pytest.CaptureFixture[str]
NAMES = sorted(script.stem for script in STAGES)
OLDER = "0.0.9"


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one, and a person whom git does not know."""
    for name in ("DARKROOM_DATA", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project. Leave it as it is."""
    folder = tmp_path_factory.mktemp("made") / "birds"
    new(folder, Wish("scenes-quick"))
    return folder


@pytest.fixture
def project(made: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the current folder."""
    shutil.copytree(made, "birds", symlinks=True)
    monkeypatch.chdir("birds")
    return elsewhere / "birds"


def age(stage: str, module: str) -> None:
    """As if a stage's file were of an older Darkroom, one of whose modules was another."""
    values = json.loads(file_of(stage).read_text())
    values["darkroom"] = OLDER
    assert module in values["modules"]
    values["modules"][module] = "0" * 32
    file_of(stage).write_text(json.dumps(values))


@pytest.mark.usefixtures("project")
def test_a_new_project_is_complete_and_committed() -> None:
    """Fails if a file of the clone is copied that it does not need, or one is missing, or is not in the commit."""
    assert Path("params.yaml").read_text() == recipes.complete("scenes-quick")
    assert not Path("src").exists()
    assert git("status", "--porcelain") == ""
    assert len(git("log", "--format=%H").splitlines()) == 1
    ours, clone = (yaml.safe_load(Path(folder, "dvc.yaml").read_text())["stages"] for folder in (".", ROOT))
    assert list(ours) == ["code", *clone]
    for stage, entry in clone.items():
        code = [f"stages/{stage}.py", f"code/{stage}.json"]
        assert ours[stage]["deps"] == [*(d for d in entry["deps"] if d[:4] not in ("src/", "stag")), *code]
        assert {key: ours[stage][key] for key in entry if key != "deps"} == {k: entry[k] for k in entry if k != "deps"}
    assert sorted(recorded_stages(stage_specs())) == NAMES, "the stage that writes the files is none of the pipeline's"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("stage", NAMES)
def test_a_stage_depends_on_what_the_clone_lists(stage: str) -> None:
    """Fails if the two projects take other code for what a stage runs; paths in a clone begin with src."""
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    code = [ROOT / path for path in listed if path.startswith(("src/", "stages/"))]
    files = {file for path in code for file in files_of(path) if file.suffix == ".py" and not CODE.is_empty(file)}
    names = {file.relative_to(ROOT).as_posix().removeprefix("src/") for file in files}
    assert CodeFile.read(stage).modules.keys() == names


@pytest.mark.usefixtures("project")
def test_the_sampler_that_params_yaml_names_is_among_what_is_compared() -> None:
    """Fails if a sampler of no recipe could change under the previews of a training."""
    sampler = "darkroom/diffusion/samplers/heun.py"
    assert sampler not in CodeFile.read("train_unet").modules
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["train_unet"]["sampling"]["sampler"] = {"kind": "heun"}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    assert [change.stage for change in sync()] == ["train_unet"]
    assert sampler in CodeFile.read("train_unet").modules


@pytest.mark.usefixtures("project")
def test_after_an_upgrade_the_stages_it_changes_are_named_and_no_other(run: Run, capsys: Said) -> None:
    """Fails if a stage runs by other code than DVC compares, or if a new version alone makes one run again."""
    assert outdated(NAMES) == []
    age("cache_latents", "darkroom/training/latent_statistics.py")
    before = {stage: file_of(stage).read_bytes() for stage in NAMES}
    now = darkroom.__version__
    why = f"darkroom {now} runs other code than {OLDER}: darkroom/training/latent_statistics.py"
    with pytest.raises(DarkroomError) as refused:
        check_installed("cache_latents")
    assert str(refused.value) == (
        f"code/cache_latents.json: {why}; run darkroom sync, or install darkroom {OLDER} again"
    )
    check_installed("train_vae")
    assert run("sync") == 0
    assert capsys.readouterr().out == f"cache_latents: {why}\n"
    assert {stage for stage in NAMES if file_of(stage).read_bytes() != before[stage]} == {"cache_latents"}
    assert run("sync") == 0
    assert capsys.readouterr().out == "code: every stage's as it was\n"
    check_installed("cache_latents")
    values = json.loads(file_of("evaluate").read_text())
    file_of("evaluate").write_text(json.dumps(values | {"darkroom": OLDER}))
    assert outdated(NAMES) == []


@pytest.mark.usefixtures("project")
def test_what_is_known_to_be_right_is_looked_at_again_where_a_file_changed() -> None:
    """The files are computed once and remembered: fails if that outlasts a change of one, or its loss."""
    assert sync() == []
    age("train_vae", "darkroom/core/rng.py")
    assert [change.stage for change in outdated(NAMES)] == ["train_vae"]
    file_of("train_vae").unlink()
    assert [change.why for change in sync()] == [f"its code is that of darkroom {darkroom.__version__}"]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("changed", ["src/darkroom/core/rng.py", "stages/train_vae.py"])
def test_what_is_known_to_be_right_is_looked_at_again_where_the_installation_changed(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an editable installation: fails if a change of a module, or of a stage's script, goes unseen."""
    clone = tmp_path / "clone"
    for name in ("src/darkroom", "stages", "recipes"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(darkroom, "__file__", str(clone / "src/darkroom/__init__.py"))
    assert sync() == []
    assert outdated(["train_vae"]) == []
    with (clone / changed).open("a") as file:
        file.write("\n# Changed.\n")
    with pytest.raises(DarkroomError, match=changed.removeprefix("src/")):
        check_installed("train_vae")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("command", ["sync", "status", "audit"])
def test_a_stage_that_is_not_installed_is_named(command: str, run: Run, capsys: Said) -> None:
    """Fails if it ends every command, and every dvc repro, by a bare FileNotFoundError."""
    with Path("dvc.yaml").open("a") as file:
        file.write("  mine:\n    cmd: python mine.py\n    deps: [code/mine.json]\n    outs: [mine.txt]\n")
    assert run(command) == 1
    assert "dvc.yaml: stage mine depends on code/mine.json, and the installed darkroom" in capsys.readouterr().err


def test_a_stage_refuses_to_run_other_code(project: Path) -> None:
    """Also where it is started by hand, without dvc's first stage."""
    age("prepare_data", "darkroom/core/seeds.py")
    command = [sys.executable, "-P", "stages/prepare_data.py"]
    environment = environment_of(project) | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("darkroom: prepare_data: code/prepare_data.json: darkroom ")
    assert "run darkroom sync" in done.stderr
    assert not Path("data/prepared").exists()


def test_a_clone_has_no_such_files(run: Run, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert run("sync") == 1
    assert "its stages depend on the code itself" in capsys.readouterr().err


def test_what_is_there_stays_and_what_fails_leaves_nothing(elsewhere: Path) -> None:
    """Fails if a folder in use is written to, or if half a project is left where the pictures do not do."""
    (elsewhere / "used").mkdir()
    (elsewhere / "used/file").touch()
    with pytest.raises(DarkroomError, match="used: is there already, and not empty"):
        new(Path("used"), Wish())
    with pytest.raises(DarkroomError, match="did you mean scenes"):
        new(Path("birds"), Wish("scene"))
    with pytest.raises(DarkroomError, match="--minutes 5: the recipe captioned alone is fitted"):
        new(Path("birds"), Wish("scenes", minutes=5))
    (elsewhere / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save("pictures/a.png")
    (elsewhere / "birds").mkdir()
    for folder in ("birds", "deep/birds"):
        with pytest.raises(DarkroomError, match="no captions beside the pictures"):
            new(Path(folder), Wish(pictures=Path("pictures")))
    with pytest.raises(DarkroomError, match="reads no pictures from outside"):
        new(Path("birds"), Wish("scenes", pictures=Path("pictures")))
    assert list((elsewhere / "birds").iterdir()) == []
    assert not (elsewhere / "deep/birds").exists()


def test_pictures_of_ones_own_are_fitted_linked_and_listed(elsewhere: Path) -> None:
    """Fails if the path of the pictures, which is this machine's, gets into the commit."""
    folder = elsewhere / "my birds"
    folder.mkdir()
    for i in range(64):
        Image.new("RGB", (72, 64), (4 * i, 255 - 4 * i, 9)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a {'small' if i % 2 else 'large'} bird number {i}")
    said = "\n".join(new(Path("birds"), Wish(pictures=Path("my birds"), minutes=30)))
    assert "64 captioned pictures" in said
    values = yaml.safe_load(Path("birds/params.yaml").read_text())
    assert values["prepare_data"]["source"]["root"] == "my birds"
    assert Path("birds/data/raw/my birds").resolve() == folder
    assert 'darkroom generate "a large bird number 0"' in Path("birds/README.md").read_text()
    os.chdir("birds")
    assert git("status", "--porcelain") == ""
    assert "data/manifests/my birds.json" in git("ls-files")
    assert str(elsewhere) not in git("show", "HEAD")


def test_pictures_without_words_take_a_recipe_without(elsewhere: Path) -> None:
    (elsewhere / "cats/cat").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (40, 40), (i, 0, 0)).save(f"cats/cat/{i}.png")
    new(Path("project"), Wish("photos-ddpm-small", pictures=Path("cats")))
    assert yaml.safe_load(Path("project/params.yaml").read_text())["prepare_data"]["source"]["root"] == "cats"
    assert json.loads(Path("project/data/manifests/cats.json").read_text()).keys() == {f"cat/{i}.png" for i in range(4)}
    assert Path("project/recipes/cifar10_photos.py").is_file(), "the recipe's header names it"


def test_a_remote_is_taken_from_where_the_command_is_given(elsewhere: Path) -> None:
    new(Path("birds"), Wish("scenes-quick", remote="store"))
    config = Path("birds/.dvc/config").read_text()
    assert f"url = {elsewhere / 'store'}" in config
    assert "remote = storage" in config


def test_outside_a_terminal_nothing_is_asked(run: Run, capsys: Said) -> None:
    assert run("new", "birds", "--recipe", "scenes-quick") == 0
    said = capsys.readouterr().out
    assert "birds: a project of the recipe scenes-quick, with a first commit\n" in said
    assert "the commit has none: git config --global user.name, user.email\n" in said
    assert "[core]" in Path("birds/.dvc/config").read_text()
