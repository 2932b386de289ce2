"""Parameters reach no shell, servers listen to this machine alone, and YAML holds values and nothing else."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from darkroom.cli import registry
from darkroom.config import params as parameters
from darkroom.config.stage_spec import stage_spec
from darkroom.core.device import runtime
from darkroom.core.errors import DarkroomError
from darkroom.evaluation.card import read_card
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from darkroom.tracking.ui import command, store_settings

ROOT = Path(__file__).parents[2]
EVIL = (
    "; touch proof",
    "$(touch proof)",
    "`touch proof`",
    "' ; touch proof ; '",
    '" && touch proof "',
    "\ntouch proof\n",
    "| touch proof",
)
Command = Callable[..., int]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """An empty project, the current folder; every process that is started is noted, with its arguments one by one."""
    noted: list[list[str]] = []
    start = subprocess.Popen.__init__

    def watched(self: Any, args: Any, *rest: Any, **how: Any) -> None:
        assert isinstance(args, list | tuple), f"one text, for a shell to take apart: {args}"
        assert not how.get("shell")
        noted.append(list(args))
        start(self, args, *rest, **how)

    monkeypatch.setattr(subprocess.Popen, "__init__", watched)
    monkeypatch.setattr(os, "system", lambda text: pytest.fail(f"a shell was given {text!r}"))
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return noted


@pytest.mark.parametrize("evil", EVIL)
def test_texts_in_parameters_and_file_names_stay_texts(
    evil: str, started: list[list[str]], monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], ModuleType]
) -> None:
    values = parameters.read(ROOT / "recipes" / "scenes-quick.yaml")
    root = f"pictures {evil}".replace("/", "")
    values["prepare_data"] |= {
        "image_size": 8,
        "max_bad_fraction": 0.0,
        "source": {"kind": "image_folder", "root": root, "caption": f"{{label}} {evil}", "manifest": None},
    }
    values["setup_text_encoder"]["hard_negatives"] = None  # there is one caption
    Path("params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("DARKROOM_DATA", str(Path.cwd()))
    for split in ("train", "validation", "test"):
        for i in range(3):
            file = Path(root, split, f"class {evil}", f"{i} {evil}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((8, 8), 90).save(file)
    body = load(ROOT / "stages" / "prepare_data.py").body
    run = Run(Account("prepare_data", {}, {}, {}, {}, "", False), tracked=False)
    assert body(parameters.load(), Work(torch.device("cpu"), run))["train"] == 3
    assert not started
    assert not list(Path.cwd().rglob("proof"))


@pytest.mark.parametrize("evil", [*EVIL, "--help", "-f", "../../etc"])
def test_a_stage_that_is_no_stage_is_handed_to_nobody(
    evil: str, started: list[list[str]], run: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ("init --quiet", "add .", "-c user.name=t -c user.email=t@example.org commit --quiet -m start"):
        Path("dvc.yaml").write_text("stages: {}\n")
        Path("dvc.lock").write_text("stages:\n  learn:\n    cmd: python learn.py\n")
        subprocess.run(["git", *line.split()], check=True)
    began = len(started)
    assert run("reproduce", "--", evil) == 1
    assert "has no such stage" in capsys.readouterr().err
    assert {arguments[0] for arguments in started[began:]} == {"git"}
    assert not any(evil in arguments for arguments in started[began:])
    assert not Path("proof").exists()


@pytest.mark.parametrize("evil", EVIL)
def test_the_address_of_the_store_is_no_argument(
    evil: str, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell could take it apart, and lists of processes would show the password in it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:secret@here/{evil.strip()}".replace(" ", "%20"))
    assert not [word for word in command(5050) if "here" in word or "secret" in word]
    assert "me:secret@here" in store_settings()["MLFLOW_BACKEND_STORE_URI"]


def test_the_user_interface_listens_to_this_machine_alone(started: list[list[str]]) -> None:
    line = command(5050)
    assert line.count("--host") == 1
    assert line[line.index("--host") + 1] == "127.0.0.1"
    assert not [word for word in line if word.startswith(("-h", "--allowed-hosts", "--cors")) or "0.0.0.0" in word]


def test_a_served_model_listens_to_this_machine_alone() -> None:
    """The commands that we tell of name no host, and without one MLflow's own is this machine."""
    cli = pytest.importorskip("mlflow.models.cli")
    (host,) = (option for option in cli.serve.params if option.name == "host")
    assert host.default == "127.0.0.1"
    told = [ROOT / "README.md", Path(registry.__file__), *(ROOT / "docs").glob("*.md"), *(ROOT / "src").rglob("*.py")]
    lines = [
        line
        for file in set(told)
        for line in re.findall(r"mlflow models serve[^`\n]*(?:\\\n[^`\n]*)*", file.read_text())
    ]
    assert len(lines) > 2
    assert not [line for line in lines if re.search(r"--host|\s-h\s|0\.0\.0\.0", line)]


TAGS = (
    "!!python/object/apply:os.system [touch proof]",
    "!!python/object/new:subprocess.Popen [[touch, proof]]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!some.Class {}",
)
WRITTEN: dict[str, tuple[str, Callable[[], Any]]] = {
    "params": ("params.yaml", parameters.load),
    "a recipe": ("params.yaml", lambda: parameters.problems("params.yaml")),
    "runtime": ("runtime.yaml", runtime),
    "the pipeline": ("dvc.yaml", lambda: stage_spec("prepare_data")),
}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize(("file", "read"), WRITTEN.values(), ids=WRITTEN)
def test_yaml_that_asks_for_an_object_is_refused(
    tag: str, file: str, read: Callable[[], Any], started: list[list[str]]
) -> None:
    for text in (tag, f"prepare_data: {tag}", f"a:\n  - {tag}"):
        Path(file).write_text(text)
        with pytest.raises(DarkroomError) as caught:
            read()
        assert file in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not started
    assert not Path("proof").exists()


@pytest.mark.parametrize("tag", TAGS)
def test_a_model_card_that_asks_for_an_object_is_refused(tag: str, started: list[list[str]]) -> None:
    Path("README.md").write_text(f"---\ndarkroom: {tag}\n---\n# A model\n")
    with pytest.raises(DarkroomError) as caught:
        read_card(Path())
    assert "\n" not in str(caught.value)
    assert not started


@pytest.mark.parametrize("text", ["? [a, b]\n: 1", "? {a: b}\n: 1", "[" * 5000, "a: &a [*a]", "a: \x00"])
def test_yaml_that_is_odd_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(DarkroomError) as caught:
        parameters.load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["/etc/model", "../model/vae", "artifacts/../../model/vae"])
def test_parameters_name_models_within_the_project(path: str, tmp_path: Path) -> None:
    values = parameters.read(ROOT / "recipes" / "sd15-finetune.yaml")
    values["train_vae"]["path"] = path
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(DarkroomError, match=r"train_vae.*leads out of the project"):
        parameters.load(tmp_path / "params.yaml")
