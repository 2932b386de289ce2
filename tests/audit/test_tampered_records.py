"""Records that are lost, forged or missing, runs that were made up, and a register that must not vouch for either."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from darkroom.core.errors import DarkroomError
from darkroom.serving import registry
from darkroom.tracking.outbox.event_log import EventLog
from darkroom.tracking.outbox.events import Begin
from darkroom.tracking.records import RecordIndex
from tests.support import toy
from tests.support.tampered_store import ABOUT, DATABASE, DEMANDS, Audit, broken, change, flip, heal, named_as, rows


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
    assert heal(audit, finding["remedy"])["whole"]
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
    assert heal(audit, finding["remedy"])["whole"]


@pytest.mark.usefixtures("tampered")
def test_a_second_record_is_not_believed(audit: Audit) -> None:
    (vae,) = rows("SELECT run_uuid FROM runs WHERE name = 'train_vae'")[0]
    record = RecordIndex.read().latest["run", vae]
    toy.commit()
    forged = replace(record, rows={**record.rows, "params": []})
    forged.save()
    finding = named_as(audit(), "lost record")
    assert finding["remedy"] == f"rm -f {forged.file}"
    assert heal(audit, finding["remedy"])["whole"]
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
        "INSERT INTO registered_model_aliases SELECT 'mine', 1, name, workspace FROM registered_models "
        "WHERE name = 'darkroom'"
    )
    found = audit()
    assert found["whole"]
    assert "tag looks good" in str(found["not_vouched_for"])
    assert "alias mine" in str(found["not_vouched_for"])
    change("UPDATE params SET value = '4' WHERE key = 'train_vae.steps'")
    assert heal(audit, broken(audit())["remedy"])["whole"]
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
