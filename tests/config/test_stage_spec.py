"""Outputs stay where DVC can keep them: a link in their way is refused before any work, and what is advised works.

With `data/` or `artifacts/` as links, as a page once advised, a stage worked to its end and DVC refused.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from darkroom.config.merging import complete_text
from darkroom.config.stage_spec import check_not_linked, stage_specs
from darkroom.core.errors import DarkroomError

ROOT = Path(__file__).parents[2]
OUTPUTS = [output for place in stage_specs(ROOT / "dvc.yaml").values() for output in place.outputs]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "large").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.mark.parametrize(
    "name", ["data", "artifacts", "reports", "reports/train_vae", "data/prepared", "artifacts/vae"]
)
@pytest.mark.parametrize("target", ["../large", "inside", "../gone"])
def test_a_link_on_the_way_to_an_output_is_refused(name: str, target: str, project: Path) -> None:
    Path("inside").mkdir()
    check_not_linked(OUTPUTS)
    link = Path(name)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent) if target == "inside" else project / target)
    if target == "../gone" and name in ("data/prepared", "artifacts/vae"):
        return check_not_linked(OUTPUTS)  # names nothing: the output takes its place
    with pytest.raises(
        DarkroomError, match=f"^{name}: is a link, .*; put the folder itself there again, and"
    ) as caught:
        check_not_linked(OUTPUTS)
    assert "\n" not in str(caught.value)
    return None


def test_links_of_dvc_and_links_beside_outputs_are_none_of_these(project: Path) -> None:
    """As `cache.type symlink` makes them; and data from outside, linked in."""
    cached = Path(".dvc/cache/files/md5/ab/cdef")
    cached.parent.mkdir(parents=True)
    cached.write_text("x")
    for file in ("data/prepared/train.parquet", "reports/train_vae/metrics.json"):
        Path(file).parent.mkdir(parents=True)
        Path(file).symlink_to(cached.resolve())
    Path("data/raw").symlink_to(project.parent / "large")
    check_not_linked([*OUTPUTS, Path("reports/train_vae/metrics.json")])


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_")) and k != "DARKROOM_DATA"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "DARKROOM_TRACKING": "off"}


def shell(command: str, check: bool = True) -> str:
    done = subprocess.run(command, shell=True, check=False, env=environment(), capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def clone(project: Path, copied_project: Callable[[Path], None]) -> Path:
    """A copy of the project with very few pictures, the current folder."""
    copied_project(project)
    values = yaml.safe_load(complete_text(Path("recipes/scenes-quick.yaml")))
    values["prepare_data"]["source"] |= {"n_train": 40, "n_validation": 10, "n_test": 10, "n_novel": 10}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return project


def test_the_remedies_of_the_refusal_and_of_the_page_work(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data").rename("../large/data")
    Path("data").symlink_to("../large/data")
    said = shell("dvc repro prepare_data", check=False)
    assert "data: is a link, and DVC keeps no output (data/prepared) behind one" in said
    assert not Path("data/prepared").exists()
    assert not Path("dvc.lock").exists()
    assert "data: is a link" in shell(
        f"{sys.executable} -c 'from darkroom.cli import main; main()' params check", False
    )

    page = (ROOT / "docs" / "scaling-out.md").read_text().partition("**A larger disk.**")[2]
    back, cache, move = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[:3]
    large = shlex.quote(str(clone.parent / "large"))
    shell(back.replace("FOLDER", "data"))
    assert not Path("data").is_symlink()
    advised = re.search(r"dvc cache dir.*?reflink,copy", said)
    assert advised is not None
    assert advised[0].replace("PATH", "") == "".join(cache.replace("/large/cache", "").split("\n"))
    shell(cache.replace("/large/cache", f"{large}/cache"))
    shell("dvc repro prepare_data")
    assert list((clone.parent / "large/cache/files/md5").iterdir())
    assert Path("data/prepared").is_dir()
    assert not [path for path in Path("data").rglob("*") if path.is_symlink()]

    monkeypatch.chdir(clone.parent)
    shell(move.replace("/large", large).replace("PROJECT", clone.name))
    assert clone.is_symlink()
    assert not (clone.parent / "large" / clone.name).is_symlink()
    monkeypatch.chdir(clone)
    assert "didn't change" in shell("dvc repro prepare_data")
    shutil.rmtree("data/prepared")
    shell("dvc checkout data/prepared")
    shell("dvc repro -f -s prepare_data")
