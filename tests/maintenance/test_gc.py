"""`darkroom gc` after experiments: it frees what it says, and whatever has a name comes back."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from darkroom import Pipeline
from darkroom.config.stage_spec import stage_spec
from darkroom.core.artifact import content_hash
from darkroom.core.dvc_settings import cache_root
from darkroom.core.errors import DarkroomError
from darkroom.maintenance.garbage import cache, copies, leftovers
from darkroom.maintenance.garbage.plan import plan
from darkroom.maintenance.garbage.references import references
from darkroom.studio.checkpoints import ASSEMBLED, _hold
from darkroom.tracking import stage_run
from darkroom.tracking.query import RunQuery
from darkroom.tracking.store import Store
from tests.support import toy
from tests.support.projects import environment_of

SRC = Path(__file__).parents[2] / "src"
WEIGHTS = 2**21  # bytes
PIPELINE = """\
stages:
  train_vae:
    cmd: python -P stages/train_vae.py
    deps: [stages/train_vae.py]
    params: [train_vae]
    outs: [artifacts/vae]
  evaluate:
    cmd: python -P stages/evaluate.py
    deps: [artifacts/vae, stages/evaluate.py]
    outs: [artifacts/pipeline]
"""
SCRIPTS = {
    "train_vae": f"""\
import random
from pathlib import Path
Path("artifacts/vae").mkdir(parents=True)
seed = int(Path("params.yaml").read_text().partition("seed: ")[2].partition("}}")[0])
Path("artifacts/vae/model.safetensors").write_bytes(random.Random(seed).randbytes({WEIGHTS}))
""",
    "evaluate": """\
from pathlib import Path
Path("artifacts/pipeline").mkdir(parents=True)
weights = Path("artifacts/vae/model.safetensors").read_bytes()
Path("artifacts/pipeline/model.safetensors").write_bytes(weights[::-1])
""",
}


def reach(seed: int) -> str:
    """Run the pipeline with this seed, have it tell of its runs, and commit; the hash of the pipeline."""
    Path("params.yaml").write_text(f"train_vae: {{seed: {seed}}}\n")
    toy.shell("dvc repro")
    for stage in SCRIPTS:
        here = stage_spec(stage)
        chosen = {"train_vae": {"seed": seed}} if stage == "train_vae" else {}
        with stage_run(stage, chosen, here.input_hashes(), here.code_hashes(), here.outputs, toy.PROFILE):
            pass
    return content_hash("artifacts/pipeline")


def make(seed: int) -> None:
    """Run the pipeline with this seed; no run is told of."""
    Path("params.yaml").write_text(f"train_vae: {{seed: {seed}}}\n")
    toy.shell("dvc repro")


def du(folder: Path) -> int:
    """Bytes, as du counts them."""
    done = subprocess.run(["du", "-s", "--block-size=1", folder], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


def checkpoint(stage: str, training: str) -> Path:
    """A checkpoint of a training, as far as gc looks at it."""
    folder = Path.cwd() / ".checkpoints" / stage / training / "step_000000009"
    folder.mkdir(parents=True)
    (folder / "tensors.safetensors").write_bytes(bytes(WEIGHTS))
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy project with real DVC, git and MLflow: nothing run yet."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(SRC))
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "DARKROOM_TRACKING", "DARKROOM_DATA"):
        monkeypatch.delenv(name, raising=False)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    toy.write_files({f"stages/{stage}.py": text for stage, text in SCRIPTS.items()})
    toy.write_files({"dvc.yaml": PIPELINE, ".gitignore": ".mlflow/\n.darkroom/\n.checkpoints/\nartifacts/\n"})
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main"], check=True)
    toy.shell("dvc init && dvc config core.analytics false && dvc config core.check_update false")
    return root


def branch_tag_and_version() -> dict[str, str]:
    """Five pipelines: one each on a branch, under a tag, in the registry, and in the working tree, and one more that
    nothing names; {commit of each that has a name: its hash}."""
    found = {}

    def commit(hash_: str) -> str:
        toy.commit()
        head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        found[head] = hash_
        return head

    commit(reach(1))
    toy.shell("git tag v1 && git checkout --quiet -b other")
    commit(reach(2))
    toy.shell("git checkout --quiet --detach")
    registered = reach(3)
    lone = commit(registered)
    store = Store()
    maker = store.find_maker("artifacts/pipeline", registered)
    assert maker is not None
    store.register(maker[0], "darkroom", "artifacts/pipeline", registered, copied=True)
    toy.shell("git checkout --quiet main")
    reach(4)  # as an experiment that was thrown away
    toy.shell(f"git checkout --quiet {lone} -- params.yaml dvc.lock")
    toy.shell("git reset --quiet --hard && dvc checkout --force")
    found[lone] = registered
    return found


def test_what_has_no_name_goes_and_what_has_one_comes_back(
    project: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches bytes that are counted and not freed, and outputs that only a tag, a branch or a version names."""
    kept = branch_tag_and_version()
    training = checkpoint("train_unet", "0123456789abcdef")
    toy.shell("dvc exp run --name tried --set-param train_vae.seed=9 --quiet && git reset --hard --quiet")
    toy.shell("dvc checkout --force")
    capsys.readouterr()
    assert run("gc") == 0
    shown = capsys.readouterr().out
    assert "nothing was removed" in shown
    assert "experiments tried" in shown
    assert "registered darkroom version 1" in shown
    expected = plan().bytes
    before = du(project)
    assert run("gc", "--yes") == 0
    said = capsys.readouterr().out
    freed = before - du(project)
    assert freed > 3 * WEIGHTS
    assert freed == pytest.approx(expected, rel=0.01), said
    assert re.search(r"freed \d", said)
    assert plan().items == []
    for commit, pipeline in kept.items():
        toy.shell(f"git checkout --quiet --force {commit} && dvc checkout --force")
        assert content_hash("artifacts/pipeline") == pipeline
        assert run("audit") == 0, capsys.readouterr().out
    toy.shell("git checkout --quiet --force main")
    assert not training.exists()


def test_runs_stay_and_their_records_hold(
    project: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a run that the audit calls changed because its copies are gone, and one whose copies were not."""
    reach(1)
    toy.commit()
    reach(2)
    toy.shell("git checkout --quiet --force -- params.yaml dvc.lock && dvc checkout --force")
    runs = len(RunQuery().tables.keys("run"))  # type: ignore[union-attr]
    assert run("gc", "--yes") == 0
    assert "copies in MLflow" in capsys.readouterr().out
    tables = RunQuery().tables
    assert tables is not None
    assert len(tables.keys("run")) == runs
    copies = sorted(path.parent.name for path in (project / ".mlflow").rglob("model.safetensors"))
    assert copies == ["pipeline", "vae"]
    assert run("audit", "--all-runs") == 0, capsys.readouterr().out


def test_experiments_are_kept_where_that_is_asked(project: Path, run: Callable[..., int]) -> None:
    reach(1)
    toy.commit()
    toy.shell("dvc exp run --name tried --set-param train_vae.seed=9 --quiet && git reset --hard --quiet")
    toy.shell("dvc checkout --force")
    assert [item.kind for item in plan().items] == ["DVC's cache"]
    assert plan(experiments=True).items == []
    assert run("gc", "--yes", "--experiments") == 0
    toy.shell("dvc exp apply tried")


def test_the_checkpoint_that_would_be_resumed_stays(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches hours of training taken away, also where nobody can tell which training would begin."""
    ours, other = checkpoint("train_vae", "aa"), checkpoint("train_vae", "bb")
    reach(1)
    assert [item.kind for item in plan().items] == []
    assert "train_vae stay" in plan().remarks[0]  # its parameters here are no Darkroom's
    monkeypatch.setattr(leftovers, "present_fingerprint", lambda stage: "aa")
    assert [item.paths for item in plan().items] == [(other.parent.relative_to(project),)]
    assert ours.exists()


def test_nothing_goes_while_a_dvc_works(project: Path) -> None:
    """Catches an output taken away that a stage at work has just written, and that dvc.lock will name."""
    reach(1)
    toy.commit()
    with Path(".dvc/tmp/rwlock").open("w") as notes:
        dvc = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dvc"])
        notes.write(f'{{"write": {{"artifacts/vae": {{"pid": {dvc.pid}, "cmd": "repro"}}}}}}')
    try:
        time.sleep(0.1)
        with pytest.raises(DarkroomError, match=f"process {dvc.pid}"):
            plan()
    finally:
        dvc.kill()
        dvc.wait()


def test_an_object_that_only_a_link_uses_stays(project: Path) -> None:
    """Catches a working tree of links whose ends are taken away."""
    toy.shell("dvc config cache.type symlink")
    reach(1)
    toy.commit()
    Path("dvc.lock").unlink()  # which then names nothing, in the tree or at HEAD
    toy.commit()
    assert Path("artifacts/vae/model.safetensors").is_symlink()
    gone = [path for item in plan().items for path in item.paths]
    assert Path("artifacts/vae/model.safetensors").resolve() not in {path.resolve() for path in gone}
    assert cache_root().is_dir()


NO_GIT = {
    "of another owner": ("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1", "another owner"),  # git's own switch to try this
    "not on the PATH": ("PATH", "/nowhere", "install it"),
}


@pytest.mark.parametrize(("variable", "value", "said"), NO_GIT.values(), ids=NO_GIT)
def test_nothing_goes_where_git_does_not_say_what_has_a_name(
    variable: str,
    value: str,
    said: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Fails if silence counts as a repository without branches and tags: all that only they name was removed then."""
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    make(1)
    toy.commit()
    make(2)
    before = sorted(cache_root().rglob("*"))
    monkeypatch.setenv(variable, value)
    assert run("gc", "--yes") == 1
    assert said in capsys.readouterr().err
    assert sorted(cache_root().rglob("*")) == before


def test_a_repository_that_is_broken_is_not_one_without_names(project: Path) -> None:
    """Fails if any other error of git's counts as "nothing has a name"."""
    toy.commit()
    Path(".git/config").write_text("[core\n")
    with pytest.raises(DarkroomError, match="bad config"):
        references(None, experiments=False)
    shutil.rmtree(".git")
    assert references(None, experiments=False).commits == {}
    Path(".git").write_text("gitdir: /nowhere\n")
    with pytest.raises(DarkroomError, match="not a git repository"):
        references(None, experiments=False)


def test_a_lock_file_of_a_commit_is_read_whole_or_nothing_goes(project: Path) -> None:
    """Fails if a dvc.lock that cannot be read counts as one that names nothing, or one of a dependency on a server."""
    remote = "{path: 'https://example.org/a.tar', etag: e1}, {path: b, md5: b1}"
    outs = "[{path: artifacts/vae, md5: v1.dir}]"
    Path("dvc.lock").write_text(f"stages: {{train_vae: {{cmd: x, deps: [{remote}], outs: {outs}}}}}\n")
    toy.commit()
    Path("dvc.lock").unlink()
    assert ("artifacts/vae", "v1.dir") in references(None, experiments=False).outputs
    Path("dvc.lock").write_text("stages: [")
    toy.commit()
    toy.shell("git tag torn && git checkout --quiet HEAD~1")
    with pytest.raises(DarkroomError, match=r"refs/tags/torn.*dvc\.lock: not a lock file.*delete that branch or tag"):
        references(None, experiments=False)


def test_of_a_shared_store_only_ones_own_copies_go(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if what only another project's commits refer to is garbage here."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    other = tmp_path / "other"
    shutil.copytree(project, other)
    reach(1)
    toy.commit()
    reach(2)
    toy.shell("git checkout --quiet --force -- params.yaml dvc.lock && dvc checkout --force")
    monkeypatch.chdir(other)
    reach(3)
    toy.commit()
    monkeypatch.chdir(project)
    query = RunQuery()
    assert query.tables is not None
    mine = {key for kind, key in query.records.latest if kind == "run"}
    assert len(set(query.tables.keys("run")) - mine) == len(SCRIPTS), "those of the other project"
    going = {item.run for item in plan().items if item.kind == copies.KIND}
    assert going
    assert going < mine


def test_a_cache_outside_the_project_is_left_to_all_who_use_it(project: Path, tmp_path: Path) -> None:
    """Fails if what another project needs is swept with this one's references."""
    toy.shell(f"dvc config --local cache.dir {tmp_path}/cache")
    make(1)
    toy.commit()
    make(2)
    make(3)
    found = plan()
    assert [item for item in found.items if item.kind == cache.KIND] == []
    assert [remark for remark in found.remarks if "outside the project" in remark and "--projects" in remark]


def test_nothing_goes_while_a_stage_works_that_no_dvc_started(project: Path) -> None:
    """Fails if what a stage writes that was started by hand is taken from it."""
    toy.commit()
    Path(".checkpoints").mkdir()
    with FileLock(".checkpoints/train_vae.lock"), pytest.raises(DarkroomError, match="train_vae works here; wait"):
        plan()
    assert plan().items == []


def test_pipelines_of_a_studio_that_runs_stay(project: Path) -> None:
    """Fails if they go while it runs: it works in the project's folder, not in theirs."""
    folder = ASSEMBLED / "01234567-step-7"
    folder.mkdir(parents=True)
    lock = _hold(ASSEMBLED.resolve())
    assert leftovers.leftovers() == []
    lock.release()
    assert [item.paths for item in leftovers.leftovers()] == [(folder,)]


@pytest.mark.slow
def test_three_experiments_with_the_whole_pipeline(
    small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., int]
) -> None:
    """Three real trainings: one is registered, one tagged, one thrown away; each that has a name loads again."""
    root = tmp_path / "project"
    shutil.copytree(small_pipeline, root, symlinks=True)
    monkeypatch.chdir(root)
    for name in [name for name in os.environ if name.startswith(("DARKROOM_", "MLFLOW_", "DVC_"))]:
        monkeypatch.delenv(name)
    for name, value in environment_of(root).items():
        monkeypatch.setenv(name, value)
    toy.commit()
    kept = {}
    for seed, command in ((11, "darkroom register"), (12, "git tag chosen"), (13, "true")):
        toy.shell(f"dvc exp run --set-param train_unet.seed={seed} && git add --all")
        toy.commit()
        commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        toy.shell(command)
        if command != "true":
            kept[commit] = content_hash("artifacts/pipeline")
        toy.shell("git reset --quiet --hard HEAD~1 && dvc checkout --force")
    expected, before = plan().bytes, du(root)
    assert run("gc", "--yes") == 0
    assert before - du(root) == pytest.approx(expected, rel=0.01)
    for commit, pipeline in kept.items():
        toy.shell(f"git checkout --quiet --force {commit} && dvc checkout --force")
        assert content_hash("artifacts/pipeline") == pipeline
        assert Pipeline.from_pretrained("artifacts/pipeline").text_to_image("a small red circle", seeds=[0]).images
