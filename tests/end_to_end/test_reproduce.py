"""`darkroom reproduce` on fresh clones of a small pipeline, with the real dvc, git and a remote in a folder."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from darkroom.core.errors import DarkroomError
from darkroom.runner import reproduce

Run = Callable[..., int]
Said = pytest.CaptureFixture[str]
CONFIG = """\
[core]
    analytics = false
    remote = shelf
['remote "shelf"']
    url = ../../shelf
"""
DVC_YAML = """\
stages:
  draw:
    cmd: python draw.py
    deps: [draw.py]
    params: [count]
    outs: [data, sheet.txt]
  learn:
    cmd: python learn.py
    deps: [learn.py, data]
    outs: [model]
    metrics:
      - metrics.json: { cache: false }
"""
DRAW = """\
import os, sys
from pathlib import Path
if not Path(os.environ["RAW"]).is_dir():
    sys.exit("darkroom: draw: data root: no such folder; set RAW")
Path("data").mkdir()
for i in range(3):
    Path(f"data/{i}.txt").write_text(f"picture {i}")
Path("sheet.txt").write_text("a sheet that learn does not read")
"""
LEARN = """\
import json, os, time
from pathlib import Path
if own := os.environ.get("DARKROOM_REPRODUCTION"):
    Path(own).mkdir()
    Path(own, "profile.json").write_text(json.dumps({"device": "the stage's"}))
Path(os.environ["WITNESS"]).open("a").write(f"ran for {os.environ['DVC_ROOT']}\\n")
Path("model").mkdir()
Path("model/config.txt").write_text("the same")
if "LINGER" in os.environ:
    try:
        Path("lingers").touch()
        time.sleep(60)
    finally:
        time.sleep(1)
        Path(os.environ["WITNESS"]).open("a").write(f"ended, its folder was there: {Path('model').is_dir()}\\n")
noise = os.environ.get("NOISE", "")
Path("model/weights.txt").write_text(noise + "".join(f.read_text() for f in sorted(Path("data").iterdir())))
Path("metrics.json").write_text("{}")
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def lock_of(folder: Path) -> dict[str, dict[str, str]]:
    """{stage: {output: hash}}."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {name: {out["path"]: out["md5"] for out in stage["outs"]} for name, stage in stages.items()}


def cached(folder: Path, digest: str) -> bool:
    return (folder / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]).exists()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed pipeline whose data are on the shelf beside it."""
    place = tmp_path_factory.mktemp("places")
    project = place / "original"
    (project / ".dvc").mkdir(parents=True)
    (place / "raw").mkdir()
    files = {
        "dvc.yaml": DVC_YAML,
        "draw.py": DRAW,
        "learn.py": LEARN,
        "params.yaml": "count: 3\n",
        ".dvc/config": CONFIG,
    }
    for name, text in files.items():
        (project / name).write_text(text)
    (project / ".gitignore").write_text(".reproduce/\n.dvc/tmp\n.dvc/cache\n.dvc/config.local\n")
    (project / "dvc.yaml").write_text(DVC_YAML)
    git(project, "init", "--quiet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
        patch.setenv("RAW", str(place / "raw"))
        patch.setenv("WITNESS", str(place / "first witness"))
        for command in ("repro", "push"):
            subprocess.run([sys.executable, "-m", "dvc", command, "--quiet"], cwd=project, check=True)
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "made")
    return project


@pytest.fixture
def clone(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone, the current folder, that finds the shelf where the original does."""
    place = original.parent / tmp_path.name
    git(original.parent, "clone", "--quiet", str(original), str(place))
    monkeypatch.chdir(place)
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    monkeypatch.setenv("RAW", str(original.parent / "raw"))
    monkeypatch.setenv("WITNESS", str(tmp_path / "witness"))
    return place


def test_a_stage_comes_out_the_same_from_no_more_than_it_needs(
    clone: Path, tmp_path: Path, run: Run, capsys: Said
) -> None:
    lock, hashes = (clone / "dvc.lock").read_bytes(), lock_of(clone)
    assert run("reproduce", "learn") == 0
    said = capsys.readouterr().out
    assert said.startswith("learn: identical: 2 of 2 outputs are those of commit ")
    assert "no run that wrote the outputs of dvc.lock is known here" in said
    ran = f"ran for {clone.resolve()}\n"  # where its run is recorded
    assert (tmp_path / "witness").read_text() == ran
    assert (clone / "dvc.lock").read_bytes() == lock
    assert git(clone, "status", "--porcelain") == ""
    assert not list((clone / ".reproduce").iterdir())
    assert cached(clone, hashes["draw"]["data"])
    assert not cached(clone, hashes["draw"]["sheet.txt"])
    assert not cached(clone, hashes["learn"]["model"])
    subprocess.run([sys.executable, "-m", "dvc", "fetch", "--quiet", "learn"], check=True)
    assert cached(clone, hashes["learn"]["model"])  # dvc could take it from there
    assert run("reproduce", "learn") == 0
    assert (tmp_path / "witness").read_text() == ran * 2


def test_what_comes_out_otherwise_is_named_and_kept_and_the_project_stays(
    clone: Path, monkeypatch: pytest.MonkeyPatch, run: Run, capsys: Said
) -> None:
    written, tampered = lock_of(clone)["learn"]["metrics.json"], "f" * 32
    (clone / "dvc.lock").write_text((clone / "dvc.lock").read_text().replace(written, tampered))
    git(clone, "commit", "--quiet", "-am", "tampered")
    lock = (clone / "dvc.lock").read_bytes()
    monkeypatch.setenv("NOISE", "other bytes ")
    assert run("reproduce", "learn", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["result"], said.get("folder")) == ("different", ".reproduce/learn"), said
    outputs = {one["path"]: one for one in said["outputs"]}
    assert said["profile"]["here"] == {"device": "the stage's"}
    assert outputs["model"]["files"] == {"changed": ["weights.txt"], "missing": [], "new": []}
    assert (outputs["metrics.json"]["recorded"], outputs["metrics.json"]["found"]) == (tampered, written)
    assert outputs["metrics.json"]["same"] is outputs["model"]["same"] is False
    assert (clone / ".reproduce/learn/model/weights.txt").read_text().startswith("other bytes ")
    assert (clone / "dvc.lock").read_bytes() == lock
    assert git(clone, "status", "--porcelain") == ""
    assert run("reproduce", "learn") == 1
    assert "rm -r .reproduce/learn" in capsys.readouterr().err


@pytest.mark.parametrize("listing", [None, "[{"])
def test_what_comes_out_otherwise_is_kept_though_the_old_files_cannot_be_listed(
    listing: str | None, clone: Path, monkeypatch: pytest.MonkeyPatch, run: Run, capsys: Said
) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "fetch", "--quiet", "data"], check=True)
    if listing is None:
        (clone / "dvc.lock").write_text((clone / "dvc.lock").read_text() + "\n")  # so that nothing may be fetched
    else:
        digest = lock_of(clone)["learn"]["model"]
        file = clone / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
        file.parent.mkdir(exist_ok=True)
        file.write_text(listing)
    monkeypatch.setenv("NOISE", "other bytes ")
    assert run("reproduce", "learn", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["result"] == "different", said
    assert {one["path"]: one["files"] for one in said["outputs"]} == {"model": None, "metrics.json": None}
    assert (clone / ".reproduce/learn/model/weights.txt").read_text().startswith("other bytes ")


def test_of_two_at_once_the_second_leaves_the_first_its_copy(
    clone: Path, monkeypatch: pytest.MonkeyPatch, run: Run, capsys: Said
) -> None:
    call: Callable[..., str] = vars(reproduce)["git_text"]

    def meanwhile(*arguments: str) -> str:
        if arguments[0] == "clone":
            patch.setattr(reproduce, "git_text", call)
            with pytest.raises(DarkroomError, match="another darkroom reproduce works in it now"):
                reproduce.reproduce("learn")
            assert (clone / ".reproduce/learn").is_dir()
        return call(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(reproduce, "git_text", meanwhile)
        assert run("reproduce", "learn") == 0
    assert "learn: identical" in capsys.readouterr().out


def test_ctrl_c_removes_the_copy_when_the_stage_has_left_it(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINGER", "")
    witness = tmp_path / "witness"
    command = [sys.executable, "-c", "from darkroom.cli import main; main()", "reproduce", "learn"]
    with (tmp_path / "said").open("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        while not (clone / ".reproduce/learn/lingers").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) != 0
    assert witness.read_text().endswith("ended, its folder was there: True\n")
    assert "KeyboardInterrupt" in (tmp_path / "said").read_text(), "what the stage says at its end is passed on"
    assert not (clone / ".reproduce/learn").exists()


def test_data_that_cannot_be_had_are_named(clone: Path, run: Run, capsys: Said) -> None:
    lock = clone / "dvc.lock"
    lock.write_text(lock.read_text() + "\n")
    assert run("reproduce", "learn") == 1
    assert "dvc.lock: differs from the last commit" in capsys.readouterr().err
    git(clone, "checkout", "--quiet", "dvc.lock")
    (clone / ".dvc" / "config").write_text(CONFIG.replace("../../shelf", "../../gone"))
    assert run("reproduce", "learn") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "learn: needs data, which is neither in DVC's cache nor came from its remote (WARNING" in said
    assert not (clone / ".reproduce" / "learn").exists()


def test_a_lock_that_was_not_made_by_its_commit_is_refused(clone: Path, run: Run, capsys: Said) -> None:
    (clone / "params.yaml").write_text("count: 4\n")
    git(clone, "commit", "--quiet", "-am", "changed and not run")
    assert run("reproduce", "draw") == 1
    assert "draw: dvc.lock of the last commit was not made by what is committed with it (changed: count)" in (
        capsys.readouterr().err
    )


def test_a_stage_that_fails_says_why(clone: Path, monkeypatch: pytest.MonkeyPatch, run: Run, capsys: Said) -> None:
    monkeypatch.setenv("RAW", "nowhere")
    assert run("reproduce", "draw", "--json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "stage": "draw",
        "result": "failed",
        "error": "draw: could not be made again (draw: data root: no such folder; set RAW)",
    }
    assert not (clone / ".reproduce" / "draw").exists()


def test_what_is_no_stage_of_a_commit_is_refused(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, capsys: Said
) -> None:
    assert run("reproduce", "lern") == 1
    assert capsys.readouterr().err == (
        "darkroom: lern: dvc.lock of the last commit has no such stage; did you mean learn?\n"
    )
    git(clone, "rm", "--quiet", "--cached", "dvc.lock")
    git(clone, "commit", "--quiet", "-m", "without")
    assert run("reproduce", "learn") == 1
    assert "dvc.lock: the last commit has none; run dvc repro and commit it" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert run("reproduce", "learn") == 1
    assert "run darkroom from the project's folder" in capsys.readouterr().err
    shutil.copy(clone / "dvc.yaml", tmp_path)
    assert run("reproduce", "learn") == 1
    assert "not a git repository" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stage_of_the_project_comes_out_the_same_by_the_code_of_the_commit(
    quick_pipeline: Path, tmp_path: Path, darkroom_in: Callable[[Path], Callable[..., str]]
) -> None:
    project = shutil.copytree(quick_pipeline, tmp_path / "project", symlinks=True)
    git(project, "add", "params.yaml", "dvc.lock", "reports")
    git(project, "commit", "--quiet", "-m", "made")
    lock = (project / "dvc.lock").read_bytes()
    for file in (project / "params.yaml", project / "src" / "darkroom" / "data" / "latents.py"):
        file.write_text("changed since, and not committed\n")
    shutil.rmtree(project / "data" / "latents")
    report = json.loads(darkroom_in(project)("reproduce", "cache_latents", "--json"))
    assert report["profile"]["recorded"] == report["profile"]["here"] is not None
    with closing(sqlite3.connect(project / ".mlflow" / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs WHERE name = 'cache_latents'").fetchone() == (2,)
    assert (project / "dvc.lock").read_bytes() == lock
    assert not (project / "data" / "latents").exists()
    assert not list((project / ".reproduce").iterdir())
