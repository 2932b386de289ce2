"""What a stage runs is told whole, and nothing that lies beside it is imported unseen.

Without these a module in the script's folder, or in PYTHONPATH, ran and stood in no account.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from darkroom.config.stage_spec import StageSpec, read_stage_specs, stage_specs
from darkroom.tracking.executed_code import (
    DEFINITION,
    FRAME,
    OUTSIDE,
    START,
    ExecutedCode,
    changed_since,
    read_tags,
    stray_code,
)
from darkroom.tracking.store import VALUE_LENGTH

ROOT = Path(__file__).parents[2]
ENTRY = {
    "cmd": "python -P stages/a.py",
    "deps": ["data/x", "src/darkroom/core", "stages/a.py"],
    "params": ["a", "b"],
    "outs": ["artifacts/a", {"reports/a.json": {"cache": False}}],
    "plots": [{"reports/a.csv": {"cache": False, "x": "step"}}],
}


def place(**changes: object) -> StageSpec:
    entry = {key: value for key, value in {**ENTRY, **changes}.items() if value is not None}
    return read_stage_specs(yaml.safe_dump({"stages": {"a": entry}}))["a"]


@pytest.mark.parametrize(
    "changes",
    [
        {"desc": "other words"},
        {"deps": ENTRY["deps"][::-1]},
        {"params": ["b", "a"]},
        {"plots": [{"reports/a.csv": {"cache": False, "y": "loss", "title": "Loss"}}]},
        {"outs": ["artifacts/a"], "metrics": [{"reports/a.json": {"cache": False}}]},
    ],
    ids=str,
)
def test_a_definition_is_the_same_however_it_is_written(changes: dict[str, object]) -> None:
    assert place(**changes).definition == place().definition


@pytest.mark.parametrize(
    "changes",
    [
        {"cmd": "python stages/a.py"},
        {"deps": ENTRY["deps"][1:]},
        {"params": ["a"]},
        {"outs": ["artifacts/a", "reports/a.json"]},
        {"outs": ["artifacts/a"]},
        {"plots": None},
        {"wdir": "src"},
        {"frozen": True},
        {"always_changed": True},
        {"env": {"A": 1}},
    ],
    ids=str,
)
def test_whatever_decides_what_a_stage_does_is_another_definition(changes: dict[str, object]) -> None:
    assert place(**changes).definition != place().definition


def python(*arguments: str, at: Path, path: str = "") -> str:
    """What a Python started in a folder prints."""
    searched = os.pathsep.join(filter(None, [path, str(ROOT / "src")]))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=at,
        env=os.environ | {"PYTHONPATH": searched},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("options", [["-P"], []], ids=["as dvc.yaml starts it", "as a person may"])
@pytest.mark.parametrize("name", ["json", "signal", "torch"])
def test_nothing_beside_a_stage_is_imported_in_place_of_another(tmp_path: Path, options: list[str], name: str) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / f"{name}.py").write_text("print('beside')\n")
    script = tmp_path / "stages" / "a.py"
    script.write_text(
        f"import darkroom.runner.startup\nimport importlib.util\nprint(importlib.util.find_spec({name!r}).origin)\n"
    )
    for called in ("stages/a.py", str(script)):
        said = python(*options, called, at=tmp_path)
        assert "beside" not in said
        assert str(tmp_path) not in said


TELL = """
import json
from darkroom.config.stage_spec import read_stage_specs
from darkroom.tracking.executed_code import ExecutedCode
import darkroom.tracking.repository
print(json.dumps(ExecutedCode(read_stage_specs(open("{entry}").read())["a"]).tags()))
"""


def test_what_was_imported_is_told_by_where_it_comes_from(tmp_path: Path) -> None:
    """Dependencies are told by dvc.lock, what starts stages with its hashes, and all else by name."""
    project, outside = tmp_path / "project", tmp_path / "outside"
    for folder in (project / "stages", outside):
        folder.mkdir(parents=True)
    (project / "src").symlink_to(ROOT / "src")
    (outside / "sitecustomize.py").write_text("import helper\n")
    (outside / "helper.py").write_text("")
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"a": ENTRY}}))
    (project / "tell.py").write_text(TELL.format(entry="dvc.yaml"))
    tags = {
        name: json.loads(value)
        for name, value in json.loads(python("-P", "tell.py", at=project, path=str(outside))).items()
    }
    assert tags[OUTSIDE] == [
        f"__main__: {project / 'tell.py'}",
        f"helper: {outside / 'helper.py'}",
        f"sitecustomize: {outside / 'sitecustomize.py'}",
    ]
    assert tags[START]["options"] == ["-P"]
    assert str(outside / "sitecustomize.py") in tags[START]["site"]
    assert str(outside) in tags[START]["environment"]["PYTHONPATH"]
    assert tags[DEFINITION] == json.loads(place().definition)
    assert FRAME in tags


def test_nothing_is_cut_however_many_files_start_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow keeps 5,000 characters of a tag: of a longer list nothing could be read, and nothing was compared."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "src" / "darkroom" / "starts"
    folder.mkdir(parents=True)
    modules = {}
    for i in range(300):
        (folder / f"file_{i}.py").write_text(f"x = {i}\n")
        modules[f"file_{i}"] = ModuleType(f"file_{i}")
        modules[f"file_{i}"].__file__ = str(folder / f"file_{i}.py")
    deps = [f"src/other/folder_{i}" for i in range(400)]
    tags = ExecutedCode(place(deps=deps), modules).tags()
    assert max(map(len, tags.values())) <= VALUE_LENGTH
    assert len(read_tags(tags, FRAME)) == 300
    assert read_tags(tags, DEFINITION)["deps"] == sorted(deps)
    del tags[f"{FRAME}.2"]
    assert read_tags(tags, FRAME) is None, "a part that is gone is no shorter list"


def test_what_starts_stages_is_told_with_its_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code = (
        "import json, darkroom.tracking.repository\nfrom darkroom.config.stage_spec import stage_specs\n"
        "from darkroom.tracking.executed_code import ExecutedCode\n"
    )
    code += "print(json.dumps(ExecutedCode(stage_specs()['train_vae']).tags()))"
    frame = read_tags(json.loads(python("-P", "-c", code, at=ROOT)), FRAME)
    assert {
        "src/darkroom/__init__.py",
        "src/darkroom/config/stage_spec.py",
        "src/darkroom/tracking/repository.py",
    } <= frame.keys()
    named = stage_specs()["train_vae"].code
    assert not [name for name in frame if {Path(name), *Path(name).parents} & set(named)], "a dependency"
    assert changed_since(frame) == []
    assert changed_since({**frame, "src/darkroom/config/stage_spec.py": "0" * 12, "src/darkroom/gone.py": "0"}) == [
        "src/darkroom/config/stage_spec.py",
        "src/darkroom/gone.py",
    ]


def test_code_that_no_stage_names_is_seen_where_python_could_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "stages/a.py",
        "stages/json.py",
        "stages/numpy/__init__.py",
        "stages/fast.cpython-311.so",
        "stages/old.pyc",
        "stages/notes.md",
        "stages/pictures/a.png",
        "stages/__pycache__/a.pyc",
        "src/darkroom/core/a.py",
        "src/darkroom/evil.py",  # nothing imports it, unless what is a dependency, or witnessed, has changed
        "src/os.py",
        "src/darkroom.egg-info/a.py",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert list(map(str, stray_code([place()]))) == [
        "src/os.py",
        "stages/fast.cpython-311.so",
        "stages/json.py",
        "stages/numpy",
        "stages/old.pyc",
    ]


def test_this_project_has_no_such_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert stray_code(read_stage_specs(Path("dvc.yaml").read_text(encoding="utf-8")).values()) == []
