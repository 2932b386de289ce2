"""A stage in a copy of the project runs the copy's code, and finds what the project alone has."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.config.params import load
from darkroom.core.errors import DarkroomError
from darkroom.runner.project_copy import link_untracked, programs_of_python_first

ROOT = Path(__file__).parents[2]


def test_the_code_that_runs_is_the_code_that_is_hashed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    script = tmp_path / "stage.py"
    script.write_text(
        "import sys, darkroom\nfrom darkroom.runner.project_copy import run_own_code\n"
        "print('start'); run_own_code(); print(darkroom.__file__, *sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, script.name, "an argument"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["start", "start", f"{tmp_path}/src/darkroom/__init__.py an argument"]


@pytest.mark.parametrize("flags", [[], ["-I"], ["-E"]], ids=["", "isolated", "without environment"])
def test_a_process_begins_again_once_at_most(flags: list[str], tmp_path: Path) -> None:
    """In a folder with a colon, which ends a place in PYTHONPATH, it began again without end."""
    place = tmp_path / "co:lon what? #1"
    shutil.copytree(ROOT / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (place / "stage.py").write_text(
        f"import sys; sys.path.append({str(ROOT / 'src')!r})\nimport darkroom\n"
        "from darkroom.runner.project_copy import run_own_code\nfrom darkroom.core.errors import DarkroomError\n"
        "print('start', flush=True)\n"
        "try:\n    run_own_code()\nexcept DarkroomError as error:\n    print(error)\n"
        "else:\n    print(darkroom.__file__)"
    )
    done = subprocess.run(
        [sys.executable, *flags, "stage.py"], cwd=place, capture_output=True, text=True, check=True, timeout=60
    )
    *starts, last = done.stdout.splitlines()
    assert starts == ["start", "start"]
    if flags:
        assert "start python without -I and -E" in last
    else:
        assert last == f"{place}/src/darkroom/__init__.py"


def test_programs_in_a_folder_with_a_colon_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/co:lon/bin/python")
    with pytest.raises(DarkroomError, match="install Darkroom in a folder without ':'"):
        programs_of_python_first()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, the current folder, of a project with data, settings and an imported model."""
    project, copy = tmp_path / "project", tmp_path / "copy"
    for name in ("data/raw/MNIST/a", "runtime.yaml", "artifacts/imported/sd15/unet/config.json"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("")
    copy.mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.delenv("DARKROOM_DATA", raising=False)
    return copy


def test_what_the_project_alone_has_is_linked(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = load(ROOT / "recipes" / "sd15-finetune.yaml")
    assert params.train_unet.init_from == "artifacts/imported/sd15/unet"
    for _ in range(2):
        link_untracked(params)
        for name in ("data/raw/MNIST/a", "runtime.yaml", "artifacts/imported/sd15/unet/config.json"):
            assert (copy / name).is_file()
    assert not (copy / "artifacts").is_symlink()
    monkeypatch.setenv("DARKROOM_DATA", "../elsewhere")
    link_untracked(params)
    assert Path(os.environ["DARKROOM_DATA"]) == copy.parent / "project" / ".." / "elsewhere"


def test_in_the_project_itself_nothing_is_linked(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(copy))
    link_untracked(load(ROOT / "recipes" / "sd15-finetune.yaml"))
    assert not list(copy.iterdir())
