"""MLflow as the forged witness: each row and file of it that a page shows is changed, added or taken away.

Each case would be passed over in silence if the audit believed what MLflow's database or folders say. The remedy that
is printed is executed, and the audit is whole afterwards.
"""
# ruff: noqa: E501 - a table of statements

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking._tracking_service import utils

from darkroom.core.errors import DarkroomError
from darkroom.serving import registry
from darkroom.serving.gate import Thresholds
from darkroom.serving.model_folder import Description
from darkroom.tracking.outbox.event_log import EventLog
from darkroom.tracking.outbox.events import Begin
from darkroom.tracking.records import RecordIndex
from tests.support import toy

Audit = Callable[..., dict[str, Any]]
ABOUT = Description(
    "# A toy",
    "a ring",
    {"fidelity.fid": 0.5},
    {"num_inference_steps": 12, "guidance_scale": 3.0, "sampler": "ddim", "strength": 0.6},
    {"DARKROOM_SERVE_ROWS": 64},
)
DEMANDS = Thresholds(False, None, None, None, False)
DATABASE = Path(".mlflow/mlflow.db")
VAE = "run_uuid = (SELECT run_uuid FROM runs WHERE name = 'train_vae')"
# What is done to the database -> how it is named. `{vae}` chooses the rows of the run of train_vae.
STATEMENTS = {
    "a run renamed": ("UPDATE runs SET name = 'better' WHERE {vae}", "name is better, was train_vae"),
    "a run that began earlier": ("UPDATE runs SET start_time = start_time - 5000 WHERE {vae}", "start_time is"),
    "a run of somebody else": ("UPDATE runs SET user_id = 'me' WHERE {vae}", "user_id is me"),
    "a run that failed": ("UPDATE runs SET status = 'FAILED' WHERE {vae}", "status is FAILED, was FINISHED"),
    "a run's files elsewhere": ("UPDATE runs SET artifact_uri = '/tmp' WHERE {vae}", "artifact_uri is /tmp"),
    "a run that is gone": ("DELETE FROM runs WHERE {vae}", "is gone"),
    "a parameter": ("UPDATE params SET value = '4' WHERE key = 'train_vae.steps'", "parameter train_vae.steps is 4, was 3"),
    "a parameter that is gone": ("DELETE FROM params WHERE key = 'train_vae.steps'", "parameter train_vae.steps is gone"),
    "a parameter more": ("INSERT INTO params SELECT 'x', '1', run_uuid FROM runs WHERE {vae}", "parameter x was added"),
    "a final metric": ("UPDATE latest_metrics SET value = 40 WHERE key = 'psnr'", "metric psnr is 40.0, was 30.0"),
    "a final metric that is gone": ("DELETE FROM latest_metrics WHERE key = 'psnr'", "metric psnr is gone"),
    "a point of a curve": ("UPDATE metrics SET value = 0.1 WHERE key = 'loss' AND step = 1", "curve loss has other points"),
    "a point that is gone": ("DELETE FROM metrics WHERE key = 'loss' AND step = 2", "curve loss has other points, 1 of them"),
    "a point more": (
        "INSERT INTO metrics SELECT 'loss', 0.0, 9, run_uuid, 9, 0 FROM runs WHERE {vae}",
        "curve loss has other points",
    ),
    "a note": ("UPDATE tags SET value = 'Best.' WHERE key = 'mlflow.note.content' AND {vae}", "tag mlflow.note.content is Best."),
    "a commit": ("UPDATE tags SET value = 'f' WHERE key = 'mlflow.source.git.commit' AND {vae}", "git.commit is f"),
    "a profile": ("UPDATE tags SET value = '{{}}' WHERE key = 'profile' AND {vae}", "tag profile is {}"),
    "a code": ("UPDATE tags SET value = 'f' WHERE key = 'code' AND {vae}", "tag code is f"),
    "a stage": ("UPDATE tags SET value = 'evaluate' WHERE key = 'stage' AND {vae}", "tag stage is evaluate"),
    "an input": ("UPDATE tags SET value = 'f' WHERE key = 'in.data/prepared' AND {vae}", "tag in.data/prepared is f"),
    "an output": ("UPDATE tags SET value = 'f' WHERE key = 'out.artifacts/vae' AND {vae}", "tag out.artifacts/vae is f"),
    "an output that is gone": ("DELETE FROM tags WHERE key = 'out.artifacts/vae' AND {vae}", "tag out.artifacts/vae is gone"),
    "a dirty flag": ("UPDATE tags SET value = 'true' WHERE key = 'git.dirty' AND {vae}", "tag git.dirty is true"),
    "a digest": ("UPDATE tags SET value = 'f' WHERE key = 'record' AND {vae}", "the record of run"),
    "a digest that is gone": ("DELETE FROM tags WHERE key = 'record' AND {vae}", "tag record does not name its record"),
    "an output more": ("INSERT INTO tags SELECT 'out.x', 'f', run_uuid FROM runs WHERE {vae}", "tag out.x was added"),
    "a data set": ("UPDATE datasets SET digest = 'f' WHERE name = 'data/prepared'", "input data/prepared is f"),
    "a data set that is gone": ("DELETE FROM datasets WHERE name = 'data/prepared'", "input data/prepared is gone"),
    "a link to a data set": ("DELETE FROM inputs WHERE destination_id IN (SELECT run_uuid FROM runs WHERE {vae})", "link to input"),
    "what a data set is for": ("UPDATE input_tags SET value = 'validation'", "tag of input"),
    "an experiment deleted": ("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'darkroom'", "is deleted"),
    "an experiment renamed": ("UPDATE experiments SET name = 'x' WHERE name = 'darkroom'", "has another name"),
    "an experiment's files": ("UPDATE experiments SET artifact_location = '/tmp' WHERE name = 'darkroom'", "artifact_"),
    "an experiment's table": ("UPDATE experiment_tags SET value = '{{}}' WHERE key LIKE '%shared%'", "is not what it should be"),
    "an experiment's tag gone": ("DELETE FROM experiment_tags WHERE key = 'mlflow.experimentKind'", "is not what it should be"),
    "a model's description": ("UPDATE registered_models SET description = 'x' WHERE name = 'darkroom'", "description is x"),
    "a model that is gone": ("DELETE FROM registered_models WHERE name = 'darkroom'", "gone"),
    "a model made up": (
        "INSERT INTO registered_models SELECT 'darkroom-x', creation_time + 1000, 1, 'x', workspace FROM registered_models LIMIT 1",
        "model darkroom-x",
    ),
    "a model's tag": ("INSERT INTO registered_model_tags SELECT 'gate', 'x', name, workspace FROM registered_models "
                      "WHERE name = 'darkroom'", "tag gate was added"),
    "an alias": ("UPDATE registered_model_aliases SET version = 2", "alias candidate is 2, was 1"),
    "an alias that is gone": ("DELETE FROM registered_model_aliases", "alias candidate is gone"),
    "a version's card": ("UPDATE model_versions SET description = 'x' WHERE name = 'darkroom'", "description is x"),
    "a version's source": ("UPDATE model_versions SET source = '/tmp' WHERE name = 'darkroom-vae'", "source is /tmp"),
    "where a version lies": ("UPDATE model_versions SET storage_location = '/tmp' WHERE name = 'darkroom'", "storage_location is /tmp"),
    "a version's run": ("UPDATE model_versions SET run_id = 'f' WHERE name = 'darkroom-pipeline'", "run_id is f"),
    "a version that is gone": ("DELETE FROM model_versions WHERE name = 'darkroom'", "gone"),
    "a version made up": (
        "INSERT INTO model_versions (name, version, creation_time, source, status, workspace, current_stage) "
        "SELECT name, 7, creation_time + 1000, source, status, workspace, current_stage FROM model_versions "
        "WHERE name = 'darkroom'",
        "version 7 of model darkroom",
    ),
    "a version's content": ("UPDATE model_version_tags SET value = 'f' WHERE key = 'content' AND name = 'darkroom'", "tag content is f"),
    "a version's gate": ("UPDATE model_version_tags SET value = 'passed' WHERE key = 'gate'", "tag gate is passed"),
    "a version's gate gone": ("DELETE FROM model_version_tags WHERE key = 'gate'", "tag gate is gone"),
    "a copy that is pending": ("UPDATE logged_models SET status = 1", "status is 1, was 2"),
    "a copy of another run": ("UPDATE logged_models SET source_run_id = 'f'", "source_run_id is f"),
    "a copy that is gone": ("DELETE FROM logged_models", "gone"),
    "a copy's setting": ("UPDATE logged_model_params SET param_value = '99' WHERE param_key = 'num_inference_steps'",
                         "parameter num_inference_steps is 99, was 12"),
    "a copy's figure": ("UPDATE logged_model_metrics SET metric_value = 0", "metric fidelity.fid is 0.0, was 0.5"),
    "a copy's card": ("UPDATE logged_model_tags SET tag_value = 'x' WHERE tag_key = 'mlflow.note.content'", "note.content is x"),
}  # fmt: skip


@pytest.fixture(scope="module")
def registered(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy project with its pipeline registered, and a curve in the run of train_vae."""
    root = tmp_path_factory.mktemp("registered") / "made"
    shutil.copytree(made, root, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "DARKROOM_TRACKING"):
            patch.delenv(name, raising=False)
        registry.register(Path("artifacts/pipeline"), ABOUT, DEMANDS, promote=True)
    return root


@pytest.fixture
def tampered(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracked: Path) -> Path:
    """A copy of it, the current folder."""
    root = tmp_path / "registered"
    shutil.copytree(registered, root, symlinks=True)
    monkeypatch.chdir(root)
    utils._artifact_repos_cache.clear()  # by which a process would write a model's files to the project it knew before
    return root


def change(statement: str) -> None:
    """Do something to the database; it changes a row."""
    with closing(sqlite3.connect(DATABASE)) as database, database:
        assert database.execute(statement.format(vae=VAE)).rowcount > 0


def heal(audit: Audit, remedy: str) -> dict[str, Any]:
    """Execute a remedy, as it is printed; the audit after it."""
    found = None
    for command in remedy.split(" && "):
        found = None
        if command.startswith("darkroom audit"):
            found = audit(*command.split()[2:])  # which ends with an audit
        elif command == "darkroom register":
            registry.register(Path("artifacts/pipeline"), ABOUT, DEMANDS, promote=True)
        elif command.startswith("dvc repro -f -s "):
            toy.shell(command)
            toy.record_run(command.split()[-1])
        else:
            toy.shell(command)
    return found or audit()


def broken(found: dict[str, Any]) -> dict[str, Any]:
    """The first finding that breaks the chain."""
    return next(finding for finding in found["findings"] if finding["breaks"])


def cases(names: Iterable[str]) -> list[Any]:
    """Every third case in each run of the tests, the others in the slow ones."""
    return [pytest.param(name, marks=[] if i % 3 == 0 else pytest.mark.slow) for i, name in enumerate(names)]


@pytest.mark.usefixtures("tampered")
@pytest.mark.parametrize("case", cases(STATEMENTS))
def test_a_row_that_was_changed_is_named_and_put_back(audit: Audit, case: str) -> None:
    statement, named = STATEMENTS[case]
    change(statement)
    found = audit()
    assert not found["whole"]
    assert named in str(found["findings"]), found["findings"]
    healed = heal(audit, toy, broken(found)["remedy"])
    assert healed["whole"], healed["findings"]


def flip(file: Path) -> None:
    """Change a byte in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def link_away(file: Path) -> None:
    """A link to a copy, in place of the file's folder."""
    aside = file.parent.with_name("aside")
    file.parent.rename(aside)
    file.parent.symlink_to(aside.absolute())


FILES = {  # what lies below .mlflow/artifacts; whether somebody else has its content, too
    "models/*/artifacts/artifacts/pipeline/weights.txt": True,
    "models/*/artifacts/served.py": True,
    "models/*/artifacts/MLmodel": True,
    "models/*/artifacts/input_example.json": True,
    "{vae}/artifacts/artifacts/vae/weights.txt": True,
    "{vae}/artifacts/reports/train_vae/metrics.json": True,
    "{vae}/artifacts/manifest.json": True,
    "{vae}/artifacts/samples/step_000001.png": True,
    "{vae}/artifacts/images/*.webp": False,
    "{vae}/artifacts/notes/words.md": False,
}
WAYS: dict[str, Callable[[Path], Any]] = {
    "a byte flipped": flip,
    "code appended": lambda file: file.write_bytes(file.read_bytes() + b"\nimport os\n"),
    "taken away": lambda file: file.unlink(),
    "one more beside it": lambda file: file.with_name("more.py").write_text("1"),
    "replaced by a link": lambda file: (file.rename(file.with_name("aside")), file.symlink_to("aside")),
    "its folder a link": link_away,
}


@pytest.mark.usefixtures("tampered")
@pytest.mark.parametrize(
    ("place", "way"),
    [
        pytest.param(place, way, marks=[] if (i + j) % 12 == 0 else pytest.mark.slow)
        for i, place in enumerate(FILES)
        for j, way in enumerate(WAYS)
    ],
)
def test_a_file_that_mlflow_keeps_is_compared_with_its_record(audit: Audit, place: str, way: str) -> None:
    """Where nobody has the content any more, that is written down and remarked for ever."""
    (vae,) = rows("SELECT run_uuid FROM runs WHERE name = 'train_vae'")[0]
    (file,) = Path(".mlflow/artifacts").glob(place.format(vae=vae))
    before = file.read_bytes()
    WAYS[way](file)
    found = audit()
    finding = broken(found)
    assert finding["kind"] == "changed in MLflow"
    healed = heal(audit, toy, finding["remedy"])
    assert healed["whole"], healed["findings"]
    assert not any((file.with_name("more.py").exists(), file.is_symlink(), file.parent.is_symlink()))
    kept = FILES[place] or way in ("one more beside it", "replaced by a link", "its folder a link")
    assert file.read_bytes() == before if kept else "lost copies" in str(healed["findings"])


def rows(question: str) -> list[Any]:
    with closing(sqlite3.connect(DATABASE)) as database:
        return database.execute(question).fetchall()


def record_of(kind: str, key: str) -> Path:
    """The file of the latest record of a thing."""
    record = RecordIndex.read().latest[kind, key]
    return record.file


@pytest.mark.usefixtures("tampered")
@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("way", ["gone", "damaged"])
def test_a_record_that_is_gone_or_damaged_is_named_and_comes_back(audit: Audit, committed: bool, way: str) -> None:
    """From git, where that has it, else from what MLflow says, which its own digest vouches for."""
    (vae,) = rows("SELECT run_uuid FROM runs WHERE name = 'train_vae'")[0]
    file = record_of("run", vae)
    if committed:
        toy.commit()
    else:
        toy.shell(f"git rm --quiet --cached {file} && git -c user.name=A -c user.email=a@b commit --quiet -m x")
    before = file.read_bytes()
    file.unlink() if way == "gone" else flip(file)
    finding = named_as(audit(), "lost record")
    assert finding["where"] == str(file)
    assert finding["remedy"].startswith("git checkout" if committed else "darkroom audit --repair")
    assert heal(audit, toy, finding["remedy"])["whole"]
    assert file.read_bytes() == before


@pytest.mark.usefixtures("tampered")
def test_a_run_whose_record_and_rows_were_changed_is_made_anew(audit: Audit) -> None:
    """Nobody can tell any more what it said: the stage runs again."""
    (vae,) = rows("SELECT run_uuid FROM runs WHERE name = 'train_vae'")[0]
    file = record_of("run", vae)
    toy.shell(f"git rm --quiet --cached {file} && git -c user.name=A -c user.email=a@b commit --quiet -m x")
    flip(file)
    change("UPDATE params SET value = '4' WHERE key = 'train_vae.steps'")
    finding = named_as(audit(), "lost record")
    assert finding["remedy"] == f"rm -f {file} && dvc repro -f -s train_vae"
    assert heal(audit, toy, finding["remedy"])["whole"]


@pytest.mark.usefixtures("tampered")
def test_a_second_record_is_not_believed(audit: Audit) -> None:
    (vae,) = rows("SELECT run_uuid FROM runs WHERE name = 'train_vae'")[0]
    record = RecordIndex.read().latest["run", vae]
    toy.commit()
    forged = replace(record, rows={**record.rows, "params": []})
    forged.save()
    finding = named_as(audit(), "lost record")
    assert finding["remedy"] == f"rm -f {forged.file}"
    assert heal(audit, toy, finding["remedy"])["whole"]
    assert record.file.exists()


@pytest.mark.usefixtures("tampered")
def test_a_run_that_was_made_up_is_no_maker_and_is_taken_away(audit: Audit) -> None:
    """It is newer than the real one, agrees with dvc.lock, and shows a better figure."""
    (vae,) = rows("SELECT run_uuid FROM runs WHERE name = 'train_vae'")[0]
    with closing(sqlite3.connect(DATABASE)) as database, database:
        for table in ("runs", "params", "tags", "latest_metrics"):
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            values = ["'forged'" if column == "run_uuid" else column for column in columns]
            chosen = f"INSERT INTO {table} SELECT {', '.join(values)} FROM {table} WHERE run_uuid = '{vae}'"
            database.execute(chosen + (" AND key != 'record'" if table == "tags" else ""))
        database.execute("UPDATE runs SET start_time = start_time + 9000 WHERE run_uuid = 'forged'")
    found = audit()
    assert found["steps"][1]["run"]["id"] == vae
    assert found["not_vouched_for"]
    finding = named_as(audit("--all-runs"), "not recorded")
    assert finding["where"] == "run forged of train_vae"
    assert finding["remedy"] == "darkroom audit --all-runs --repair"
    assert audit("--all-runs", "--repair")["whole"]


@pytest.mark.usefixtures("tampered")
def test_what_people_add_is_not_vouched_for_and_stays(audit: Audit) -> None:
    change("INSERT INTO tags SELECT 'looks good', 'yes', run_uuid FROM runs WHERE {vae}")
    change(
        "INSERT INTO registered_model_aliases SELECT 'mine', 1, name, workspace FROM registered_models WHERE name = 'darkroom'"
    )
    found = audit()
    assert found["whole"]
    assert "tag looks good" in str(found["not_vouched_for"])
    assert "alias mine" in str(found["not_vouched_for"])
    change("UPDATE params SET value = '4' WHERE key = 'train_vae.steps'")
    assert heal(audit, toy, broken(audit())["remedy"])["whole"]
    assert rows("SELECT value FROM tags WHERE key = 'looks good'") == [("yes",)]


@pytest.mark.usefixtures("tampered")
def test_runs_from_before_records_are_remarked(audit: Audit) -> None:
    """A project whose runs and model were made by an older Darkroom: nothing breaks, and register renews the model."""
    toy.forget_records()
    for table, column in (
        ("tags", "key"),
        ("model_version_tags", "key"),
        ("registered_model_tags", "key"),
        ("logged_model_tags", "tag_key"),
    ):
        change(f"DELETE FROM {table} WHERE {column} = 'record'")
    found = audit()
    assert found["whole"]
    assert {finding["kind"] for finding in found["findings"]} == {"recorded before digests"}
    (served,) = Path(".mlflow/artifacts/models").glob("*/artifacts/served.py")
    served.write_text(served.read_text() + "\nimport os\n")
    finding = named_as(audit(), "changed in MLflow")
    assert finding["remedy"] == "darkroom register"
    registry.register(Path("artifacts/pipeline"), ABOUT, DEMANDS, promote=True)
    assert audit()["whole"]


@pytest.mark.usefixtures("tampered")
@pytest.mark.parametrize("at", ["log_model_artifacts", "create_model_version"])
def test_a_register_that_was_killed_is_named_and_done_again(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """It left a folder that no version names, pending or whole."""
    Path("artifacts/pipeline/weights.txt").write_text("others")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, at, killed)
        with pytest.raises(KeyboardInterrupt):
            registry.register(Path("artifacts/pipeline"), ABOUT, DEMANDS, promote=True)
    change("UPDATE logged_model_tags SET tag_value = '0' WHERE tag_key = 'process.pid'")
    found = named_as(audit(), "half registered")
    assert found["remedy"] == "darkroom register"
    assert registry.register(Path("artifacts/pipeline"), ABOUT, DEMANDS, promote=True).version == "2"
    kept = [folder for folder in Path(".mlflow/artifacts/models").iterdir() if any(folder.iterdir())]
    assert len(kept) == 2
    assert "half registered" not in str(audit()["findings"])


def add_a_line(to: str) -> None:
    """Append to the one file of a registered copy of this name."""
    (file,) = Path(".mlflow/artifacts/models").glob(f"*/artifacts/{to}")
    file.write_text(file.read_text() + "\nimport os\n")


@pytest.mark.usefixtures("tampered")
@pytest.mark.parametrize(
    "tamper",
    [
        lambda: change("UPDATE model_version_tags SET value = 'passed' WHERE key = 'gate'"),
        lambda: change("DELETE FROM logged_model_params WHERE param_key = 'num_inference_steps'"),
        lambda: add_a_line("served.py"),
    ],
    ids=["a tag of the version", "a setting of the copy", "code of the copy"],
)
def test_register_does_not_vouch_for_what_was_tampered_with(audit: Audit, tamper: Callable[[], None]) -> None:
    """Would catch a register that writes a new record of what somebody changed, after which no audit could name it."""
    tamper()
    records = sorted(Path(".darkroom").rglob("*.json"))
    with pytest.raises(DarkroomError, match=r"is not as it was recorded .* darkroom audit --repair, then"):
        registry.register(Path("artifacts/pipeline"), ABOUT, DEMANDS, promote=True)
    assert sorted(Path(".darkroom").rglob("*.json")) == records
    assert named_as(audit(), "changed in MLflow")
    assert audit("--repair")["whole"]
    assert registry.register(Path("artifacts/pipeline"), ABOUT, DEMANDS, promote=True).version == "1"
    assert audit()["whole"]


def named_as(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """The one finding of a kind."""
    (finding,) = [finding for finding in found["findings"] if finding["kind"] == kind]
    return dict(finding)


@pytest.mark.parametrize("tamper", [False, True])
def test_a_project_that_nobody_may_write_is_audited_alike_and_stays_as_it_is(
    audit: Audit, tampered: Path, tamper: bool
) -> None:
    """Root may write everywhere: so not even the times of folders may change, which any file made for a moment does."""
    EventLog.create(Begin("evaluate", 1_700_000_000_000, "", {}, {"stage": "evaluate"}, {})).release()
    if tamper:
        change("UPDATE params SET value = '4' WHERE key = 'train_vae.steps'")
    before = audit()
    for path in [*tampered.rglob("*"), tampered]:
        path.chmod(path.stat().st_mode & ~0o222, follow_symlinks=True)
    state = {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in [*tampered.rglob("*"), tampered]}
    try:
        assert audit() == before
        assert before["whole"] != tamper, before["findings"]
        assert {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in state} == state
        assert {*tampered.rglob("*"), tampered} == set(state)
    finally:
        for path in [tampered, *tampered.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)
