"""Drawing with adapters: in the record, drawn again to the byte, and files that are no longer there."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from darkroom.core.artifact import file_hash
from darkroom.interop.diffusers import read_unet
from darkroom.interop.lora import FILE
from tests.support import adapters, pipelines

Run = Callable[..., int]
Said = pytest.CaptureFixture[str]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipelines.assembled(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a pipeline and two adapters of it."""
    shutil.copytree(folder, tmp_path / "artifacts" / "pipeline")
    for seed, name in enumerate(("first", "second")):
        (tmp_path / name).mkdir()
        adapted = adapters.random_adapters(read_unet(folder / "unet", CPU, "fp32"), None, seed)
        adapters.write(tmp_path / name / FILE, adapted, {"data/latents": str(seed) * 32})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_THREADS", str(torch.get_num_threads()))
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    before = torch.get_deterministic_debug_mode()
    yield tmp_path
    torch.set_deterministic_debug_mode(before)


TWO = ("--lora", "first:0.8", "--lora", f"second/{FILE}:-0.5")


def test_a_picture_drawn_with_two_adapters_is_drawn_again_to_the_byte(here: Path, run: Run, capsys: Said) -> None:
    """Fails if a record forgets an adapter, its strength or their order."""
    assert run("generate", "a red circle", "--out", "with.png", *TWO) == 0
    assert run("generate", "a red circle", "--out", "without.png") == 0
    with Image.open("with.png") as picture:
        record, facts = json.loads(picture.info["darkroom"]), picture.info
    first, second = record["adapters"]
    assert (first["file"], first["strength"], first["md5"]) == (f"first/{FILE}", 0.8, file_hash(Path("first", FILE)))
    assert (second["strength"], second["inputs"]) == (-0.5, {"data/latents": "1" * 32})
    assert f"first/{FILE}:0.8" in facts["lora"]
    with Image.open("without.png") as picture:
        assert "adapters" not in json.loads(picture.info["darkroom"])
    assert Path("with.png").read_bytes() != Path("without.png").read_bytes()
    capsys.readouterr()
    assert run("regenerate", "with.png") == 0
    assert "the same file, to the byte" in capsys.readouterr().out
    assert Path("with-again.png").read_bytes() == Path("with.png").read_bytes()


def test_an_adapter_that_was_moved_is_named_and_can_be_given(here: Path, run: Run, capsys: Said) -> None:
    assert run("generate", "a red circle", "--out", "with.png", *TWO) == 0
    Path("second").rename("elsewhere")
    assert run("regenerate", "with.png") == 1
    said = capsys.readouterr().err
    assert file_hash(Path("elsewhere", FILE)) in said
    assert "name that file with --lora FILE" in said
    assert run("regenerate", "with.png", "--lora", "elsewhere") == 0
    shutil.copy(Path("elsewhere", FILE), Path("first", FILE))
    assert run("regenerate", "with.png", "--lora", "elsewhere") == 1
    assert "is another file" in capsys.readouterr().err


def test_the_merged_pipeline_draws_what_the_adapters_draw(here: Path, run: Run, capsys: Said) -> None:
    assert run("merge", "merged", *TWO) == 0
    assert f"first/{FILE}: " in capsys.readouterr().out
    assert run("generate", "a red circle", "--out", "with.png", *TWO) == 0
    assert run("generate", "a red circle", "--out", "merged.png", "--pipeline", "merged") == 0
    with Image.open("with.png") as one, Image.open("merged.png") as other:
        assert one.tobytes() == other.tobytes()


def test_an_adapter_that_is_merged_twice_is_recorded_twice(here: Path, run: Run) -> None:
    """With both strengths, in order; fails where they are kept by the file's name."""
    twice = ("--lora", "first:0.8", "--lora", f"first/{FILE}:-0.5")
    assert run("merge", "merged", *twice) == 0
    said = json.loads(Path("merged", "provenance.json").read_text())
    md5 = file_hash(Path("first", FILE))
    assert [(one["md5"], one["strength"]) for one in said["adapters"]] == [(md5, 0.8), (md5, -0.5)]
    assert said["inputs"][f"first/{FILE}"] == md5


@pytest.mark.parametrize(
    ("value", "says"), [("nowhere:0.5", "nowhere"), ("first:loud", "FILE:STRENGTH"), ("first:99", "not between")]
)
def test_an_adapter_that_is_none_is_refused(here: Path, run: Run, capsys: Said, value: str, says: str) -> None:
    assert run("generate", "a red circle", "--out", "x.png", "--lora", value) == 1
    assert says in capsys.readouterr().err
    assert not Path("x.png").exists()
