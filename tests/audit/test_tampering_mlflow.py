"""MLflow as the forged witness: each row and file of it that a page shows is changed, added or taken away.

Each case would be passed over in silence if the audit believed what MLflow's database or folders say. The remedy that
is printed is executed, and the audit is whole afterwards.
"""
# ruff: noqa: E501 - a table of statements

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.tampered_store import Audit, broken, change, flip, heal, rows

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
    "a checkpoint's data": ("UPDATE logged_model_metrics SET dataset_digest = 'f' WHERE model_id IN {weights}",
                            "dataset_digest of metric psnr is f"),
    "a checkpoint's score": ("UPDATE logged_model_metrics SET metric_value = 40 WHERE model_id IN {weights}",
                             "metric psnr is 40.0, was 30.0"),
    "a checkpoint's weights": ("UPDATE logged_model_tags SET tag_value = 'f' WHERE tag_key = 'content' AND model_id IN {weights}",
                               "tag content is f"),
    "a checkpoint that is gone": ("DELETE FROM logged_models WHERE model_id IN {weights}", "gone"),
    "a checkpoint deleted": ("UPDATE logged_models SET lifecycle_stage = 'deleted' WHERE model_id IN {weights}",
                             "lifecycle_stage is deleted"),
    "a checkpoint made up": (
        "INSERT INTO logged_models SELECT 'm-1', experiment_id, name, artifact_location, creation_timestamp_ms + 9000, "
        "last_updated_timestamp_ms, status, lifecycle_stage, model_type, source_run_id, status_message "
        "FROM logged_models WHERE model_id IN {weights}",
        "checkpoint m-1 of the model darkroom-vae",
    ),
    "which checkpoint a run made": ("DELETE FROM inputs WHERE destination_id IN {weights}", "link to input or model"),
}  # fmt: skip


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
    healed = heal(audit, broken(found)["remedy"])
    assert healed["whole"], healed["findings"]


def link_away(file: Path) -> None:
    """A link to a copy, in place of the file's folder."""
    aside = file.parent.with_name("aside")
    file.parent.rename(aside)
    file.parent.symlink_to(aside.absolute())


def link_aside(file: Path) -> None:
    """A link to what it was, in place of the file."""
    file.rename(file.with_name("aside"))
    file.symlink_to("aside")


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
    "replaced by a link": link_aside,
    "its folder a link": link_away,
}


@pytest.mark.usefixtures("tampered")
def test_files_that_appear_where_a_checkpoint_has_none_are_named_and_taken_away(audit: Audit) -> None:
    """Catches weights that MLflow shows for a checkpoint whose record knows of no files."""
    (model,) = rows("SELECT model_id FROM logged_models WHERE name = 'darkroom-vae'")[0]
    planted = Path(".mlflow/artifacts/models", model, "artifacts/weights.txt")
    planted.parent.mkdir(parents=True)
    planted.write_text("other weights")
    finding = broken(audit())
    assert finding["what"] == "files were added: weights.txt"
    healed = heal(audit, finding["remedy"])
    assert healed["whole"], healed["findings"]
    assert not planted.exists()


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
    healed = heal(audit, finding["remedy"])
    assert healed["whole"], healed["findings"]
    assert not any((file.with_name("more.py").exists(), file.is_symlink(), file.parent.is_symlink()))
    kept = FILES[place] or way in ("one more beside it", "replaced by a link", "its folder a link")
    assert file.read_bytes() == before if kept else "lost copies" in str(healed["findings"])
