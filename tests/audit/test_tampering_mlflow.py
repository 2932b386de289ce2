"""MLflow as the forged witness: each row and file of it that a page shows is changed, added or taken away.

Each case would be passed over in silence if the audit believed what MLflow's database or folders say. The remedy that
is printed is executed, and the audit is whole afterwards.
"""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from darkroom.tracking import registry
from darkroom.tracking.gate import Thresholds

Audit = Callable[..., dict[str, Any]]
ABOUT = registry.Description(
    "# A toy",
    "a ring",
    {"fidelity.fid": 0.5},
    {"num_inference_steps": 12, "guidance_scale": 3.0, "sampler": "ddim", "strength": 0.6},
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
    "an experiment's files": ("UPDATE experiments SET artifact_location = '/tmp' WHERE name = 'darkroom'", "artifact_location is /tmp"),
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
    "a version's gate": ("UPDATE model_version_tags SET value = 'overridden' WHERE key = 'gate'", "tag gate is overridden"),
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
def tampered(registered: Path, tmp_path: Path, toy: ModuleType, monkeypatch: pytest.MonkeyPatch, tracked: Path) -> Path:
    """A copy of it, the current folder."""
    root = tmp_path / "registered"
    shutil.copytree(registered, root, symlinks=True)
    monkeypatch.chdir(root)
    return root


def change(statement: str) -> None:
    """Do something to the database; it changes a row."""
    with closing(sqlite3.connect(DATABASE)) as database, database:
        assert database.execute(statement.format(vae=VAE)).rowcount > 0


def heal(audit: Audit, toy: ModuleType, remedy: str) -> dict[str, Any]:
    """Execute a remedy, as it is printed; the audit after it."""
    for command in remedy.split(" && "):
        if command.startswith("darkroom audit"):
            audit(*command.split()[2:])
        elif command == "darkroom register":
            registry.register(Path("artifacts/pipeline"), ABOUT, DEMANDS, promote=True)
        elif command.startswith("dvc repro -f -s "):
            toy.shell(command)
            toy.record_run(command.split()[-1])
        else:
            toy.shell(command)
    return audit()


def broken(found: dict[str, Any]) -> dict[str, Any]:
    """The first finding that breaks the chain."""
    return next(finding for finding in found["findings"] if finding["breaks"])


@pytest.mark.usefixtures("tampered")
@pytest.mark.parametrize("case", STATEMENTS)
def test_a_row_that_was_changed_is_named_and_put_back(audit: Audit, toy: ModuleType, case: str) -> None:
    statement, named = STATEMENTS[case]
    change(statement)
    found = audit()
    assert not found["whole"]
    assert named in str(found["findings"]), found["findings"]
    healed = heal(audit, toy, broken(found)["remedy"])
    assert healed["whole"], healed["findings"]
