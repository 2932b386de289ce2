"""darkroom compare, on pipelines of tiny random networks."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom import Pipeline
from darkroom.core.artifact import read_json, write_json
from darkroom.data.prepared import Info
from darkroom.evaluation.card import write_card
from darkroom.tracking import stage_run
from darkroom.view.sheet import GUTTER, JOINT, LINE, PICTURE, enlarged
from tests.support import pipelines

Run = Callable[..., int]
Said = pytest.CaptureFixture[str]
DATA = Info("scenes", 16, 3, {"test": 5, "train": 40}, (), (), {"words": 9}, (), captions=True)
JUDGED_WITH = {"data/prepared": "d.dir", "artifacts/evaluator": "e.dir"}


def around(value: float, half: float = 0.02) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": 100}


def figures(exact: float, **others: Any) -> dict[str, Any]:
    split = {"exact_match": around(exact), "judges": {"a": {"exact_match": around(exact)}}}
    return {
        "alignment": {"test": split},
        "fidelity": {"fid": around(0.5), "blur": "a Gaussian of 4 pixels", "scale": {"fid": {"real": 0.4}}},
        "withheld": {},
        "judged_with": JUDGED_WITH,
        **others,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pipelines of every kind of condition: text, class, none."""
    root = tmp_path_factory.mktemp("made")
    for kind in ("text", "class", "none"):
        shutil.copytree(pipelines.assembled(tmp_path_factory.mktemp(kind), kind=kind), root / kind)
    return root


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in no git repository, with pipelines: text and other (likewise, drawn in fewer steps)."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    shutil.copytree(made / "text", tmp_path / "other")
    info = read_json(tmp_path / "other" / "pipeline.json")
    info["sampling"]["num_inference_steps"] = 2
    write_json(tmp_path / "other" / "pipeline.json", info)
    for name, prompt in (("text", "a small red circle"), ("other", "a large blue square")):
        judge = {"valid": True, "reason": ""}
        metrics = {
            "alignment": {"test": {}},
            "evaluator": judge,
            "fidelity": {"features": "a judge", "blur": "a Gaussian of 4 pixels"},
            "withheld": {},
        }
        write_card(tmp_path / name, DATA, metrics, {}, prompt)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    monkeypatch.setenv("DARKROOM_THREADS", str(torch.get_num_threads()))
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    return tmp_path


def cell(sheet: Path, row: int, column: int) -> Any:
    """A picture on the sheet."""
    x, y = GUTTER + PICTURE + GUTTER + column * (PICTURE + JOINT), GUTTER + LINE + row * (PICTURE + JOINT)
    with Image.open(sheet) as opened:
        return np.asarray(opened.convert("RGB").crop((x, y, x + PICTURE, y + PICTURE)))


def test_the_same_prompts_and_seeds_stand_side_by_side(place: Path, run: Run, capsys: Said) -> None:
    """Catches pictures that are mixed up: of another seed, prompt or pipeline than where they stand."""
    prompts = ["a small red circle", "a large blue square", "a small green circle"]
    Path("sheets").mkdir()
    assert run("compare", "text", "other", *prompts, "--seeds", "3,9", "--out", "sheets/both.png") == 0
    assert "sheets/both.png" in capsys.readouterr().out
    for which, name in enumerate(("text", "other")):
        model = Pipeline.from_pretrained(name, device="cpu")
        for row, prompt in enumerate(prompts):
            drawn = model.text_to_image([prompt] * 2, seeds=[3, 9]).images
            for k, picture in enumerate(drawn):
                found = cell(Path("sheets/both.png"), row, 2 * k + which)
                apart = np.abs(found.astype(int) - np.asarray(enlarged(picture)).astype(int))
                assert apart.max() <= 1, (name, prompt, k)


def test_without_prompts_the_model_cards_say_what_to_ask_for(place: Path, run: Run, capsys: Said) -> None:
    assert run("compare", "text", "other") == 0
    with Image.open("compare.png") as sheet:
        assert sheet.height == GUTTER + LINE + 2 * (PICTURE + JOINT) + 12, "a row for the prompt of each card"
    said = capsys.readouterr().out
    assert "A = text\nB = other\n" in said
    (line,) = (line for line in said.splitlines() if line.startswith("sampling.num_inference_steps"))
    assert line.split() == ["sampling.num_inference_steps", "4", "2"]
    assert "only the parameters in their folders are compared" in said


def test_a_prompt_that_one_cannot_be_asked_for_is_left_empty_and_said(place: Path, run: Run, capsys: Said) -> None:
    """For every pair of conditions; catches a traceback, or a picture of something else."""
    assert run("compare", "text", "class", "one", "a small red circle", "--seeds", "0") == 0
    said = capsys.readouterr().out
    assert "B cannot be asked for 'a small red circle': left empty; its classes: zero, one, two" in said
    assert len(np.unique(cell(Path("compare.png"), 1, 1))) <= 3, "one colour"
    assert len(np.unique(cell(Path("compare.png"), 0, 1))) > 3
    assert run("compare", "none", "text", "a small red circle", "--seeds", "0") == 0
    assert "A takes no prompts" in capsys.readouterr().out
    assert run("compare", "class", "none") == 0
    assert run("compare", "none", "none", "--seeds", "1") == 0
    assert "takes no prompts" not in capsys.readouterr().out.rpartition("A = none")[2], "nothing was asked"
    assert run("compare", "class", "class", "three") == 1
    assert "prompt 'three': neither can be asked for it; the classes: A has zero, one, two" in capsys.readouterr().err


def test_figures_that_compare_are_shown_with_their_difference(place: Path, run: Run, capsys: Said) -> None:
    """Those about the judge are left out; and a difference is marked only where its interval leaves out 0."""
    write_json(place / "text" / "evaluation.json", figures(0.7))
    write_json(place / "other" / "evaluation.json", figures(0.9))
    assert run("compare", "text", "other", "a small red circle", "--seeds", "0") == 0
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "0.7 [0.68, 0.72]  0.9 [0.88, 0.92]  0.2 [0.1717, 0.2283] *" in lines["alignment.test.exact_match"]
    assert lines["fidelity.fid"].endswith("0 [-0.02828, 0.02828]")
    assert not any("judges" in line or "scale" in line for line in lines)


def test_figures_that_do_not_compare_have_no_difference(place: Path, run: Run, capsys: Said) -> None:
    write_json(place / "text" / "evaluation.json", figures(0.7))
    other = figures(0.9, judged_with={**JUDGED_WITH, "data/prepared": "x"}, withheld={"fidelity.fid": "noise is near"})
    write_json(place / "other" / "evaluation.json", other)
    assert run("compare", "text", "other", "a small red circle", "--seeds", "0") == 0
    said = capsys.readouterr().out
    assert "The figures do not compare: judged with another data/prepared" in said
    assert "B - A" not in said
    assert "0.7 [0.68, 0.72]  0.9 [0.88, 0.92]\n" in said
    assert "B fidelity.fid is withheld: noise is near" in said


@pytest.mark.parametrize(
    ("content", "said"), [(None, "B has no evaluation.json"), ("[1", "B has a damaged evaluation.json")]
)
def test_without_figures_the_pictures_are_compared_all_the_same(
    content: str | None, said: str, place: Path, run: Run, capsys: Said
) -> None:
    write_json(place / "text" / "evaluation.json", figures(0.7))
    if content is not None:
        (place / "other" / "evaluation.json").write_text(content)
    assert run("compare", "text", "other", "a small red circle", "--seeds", "0") == 0
    out = capsys.readouterr().out
    assert said in out
    assert "0.7 [0.68, 0.72]  –" in out


def test_the_runs_that_made_them_tell_how_they_were_trained(
    place: Path, run: Run, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_TRACKING", "on")
    monkeypatch.setenv("DVC_ROOT", str(place))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    pipeline = Path("artifacts/pipeline")
    pipeline.parent.mkdir()
    for name, steps in (("text", 100), ("other", 250)):
        shutil.copytree(name, pipeline)
        with stage_run("evaluate", {"train_unet": {"steps": steps, "seed": 0}}, {}, {}, [pipeline], {}):
            pass
        shutil.rmtree(pipeline)
    assert run("compare", "text", "other", "a small red circle", "--seeds", "0") == 0
    said = capsys.readouterr().out
    assert ["train_unet.steps", "100", "250"] in [line.split() for line in said.splitlines()]
    assert "train_unet.seed" not in said
    assert "not both known" not in said


WRONG = {
    "seeds": (["text", "other", "--seeds", "1,x"], "--seeds = '1,x': give whole numbers"),
    "a negative seed": (["text", "other", "--seeds=-1"], "--seeds = '-1': give whole numbers"),
    "too many": (
        ["text", "other", "--seeds", ",".join(map(str, range(300)))],
        "600 pictures are more than 256; give fewer",
    ),
    "no pipeline": (["text", "gone"], "gone: no such pipeline"),
    "no PNG": (["text", "other", "--out", "a.jpg"], "--out = a.jpg: give a name that ends in .png"),
    "two ways": (["text", "other", "a ring", "--prompts-file", "f.txt"], "give either PROMPTS or --prompts-file"),
    "no file": (["text", "other", "--prompts-file", "f.txt"], "f.txt: cannot be read"),
    "an empty file": (["text", "other", "--prompts-file", "empty.txt"], "holds no prompt; write one a line"),
    "what UTF-8 cannot hold": (["text", "other", "caf\udce9"], "cannot be written as UTF-8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line_before_anything_is_drawn(case: str, place: Path, run: Run, capsys: Said) -> None:
    (place / "empty.txt").write_text("\n \n")
    arguments, said = WRONG[case]
    assert run("compare", *arguments) == 1
    out, err = capsys.readouterr()
    assert said in err
    assert err.count("\n") == 1
    assert "=" not in out
    assert not (place / "compare.png").exists()


def test_a_file_of_prompts_as_editors_write_it(place: Path, run: Run) -> None:
    (place / "prompts.txt").write_bytes("\ufeffa small red circle\r\n\r\na large blue square\r\n".encode())
    assert run("compare", "text", "other", "--prompts-file", "prompts.txt", "--seeds", "0", "--out", "file.png") == 0
    assert run("compare", "text", "other", "a small red circle", "a large blue square", "--seeds", "0") == 0
    assert Path("file.png").read_bytes() == Path("compare.png").read_bytes()


def test_help_teaches(run: Run, capsys: Said) -> None:
    assert run("compare", "--help") == 0
    assert "darkroom compare before artifacts/pipeline" in capsys.readouterr().out
