"""`darkroom register`: versions, the runs they belong to, and where they lie."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from darkroom import cli
from darkroom.core.artifact import content_hash
from darkroom.inference.defaults import EXAMPLE
from darkroom.tracking import stage_run
from tests.support.registering import PIPELINE, ClientOf, describe


def test_a_pipeline_is_one_version_however_often_it_is_registered(
    register: Callable[..., str], client: mlflow.MlflowClient
) -> None:
    describe(PIPELINE, "one")
    first = register()
    assert "just registered; candidate now names it" in first
    assert "  serve: darkroom serve\n" in first
    assert "  draw: darkroom generate " in first
    version = client.get_model_version_by_alias("darkroom", "candidate")
    assert version.tags["content"] == content_hash(PIPELINE)
    assert "## Metrics" in version.description
    assert "license:" not in version.description, "the front matter is for machines"
    again = register()
    assert f"is version {version.version} of the model darkroom, registered before; candidate names it" in again

    describe(PIPELINE, "two")
    register()
    newer = client.get_model_version_by_alias("darkroom", "candidate")
    assert int(newer.version) == int(version.version) + 1
    describe(PIPELINE, "one")
    assert "registered before; candidate now names it" in register()
    assert client.get_model_version_by_alias("darkroom", "candidate").version == version.version


def test_a_version_belongs_to_the_run_that_assembled_it_and_has_its_metrics(
    register: Callable[..., str], client: mlflow.MlflowClient
) -> None:
    describe(PIPELINE, "of a run")
    with stage_run("evaluate", {}, {}, {}, [PIPELINE], {}) as run:
        pass
    register()
    version = client.get_model_version_by_alias("darkroom", "candidate")
    assert version.run_id == run.id
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert model.source_run_id == run.id
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "darkroom", "version": version.version}]
    assert {metric.key: metric.value for metric in model.metrics} == {
        "alignment.test.attribute_accuracy": 0.9,
        "alignment.test.exact_match": 0.7,
        "fidelity.fid": 0.5,
        "vae.psnr": 30.0,
    }
    assert {(metric.dataset_name, metric.dataset_digest) for metric in model.metrics} == {("data/prepared", "d.dir")}
    assert model.model_id in {output.model_id for output in client.get_run(run.id).outputs.model_outputs}
    assert "darkroom-pipeline" in {m.name for m in client.search_registered_models()}


def test_a_version_leads_to_the_runs_of_all_its_parts_and_says_where_the_rest_of_its_card_is(
    register: Callable[..., str], client: mlflow.MlflowClient
) -> None:
    """Catches a part, and a commit, that only somebody finds who knows where to look; and a description that MLflow's
    databases would cut off."""
    describe(PIPELINE, "of parts")
    (PIPELINE / "README.md").write_text((PIPELINE / "README.md").read_text() + "\nMuch is to be said. " * 400)
    Path("data/latents").mkdir(parents=True)
    Path("data/latents/info.json").write_text("{}")
    unet, latents = Path("artifacts/unet"), Path("data/latents")
    with stage_run("cache_latents", {}, {}, {}, [latents], {}) as cache:
        pass
    with stage_run("train_unet", {}, {str(latents): content_hash(latents)}, {}, [unet], {}) as train:
        unet.mkdir(exist_ok=True)
        (unet / "config.json").write_text('{"of": "parts"}')
    with stage_run("evaluate", {}, {str(unet): content_hash(unet)}, {}, [PIPELINE], {}) as evaluate:
        pass
    register()
    version = client.get_model_version_by_alias("darkroom", "candidate")
    assert version.run_id == evaluate.id
    assert len(version.description) <= 5000
    table = [line for line in version.description.splitlines() if line.startswith("|") and "/runs/" in line]
    for path, run, line in zip((latents, unet, PIPELINE), (cache, train, evaluate), table, strict=True):
        assert f"`{path}`" in line
        assert f"/runs/{run.id}?" in line
        assert content_hash(path)[:8] in line
    assert version.description.startswith("[scores](")
    assert "of no known commit" in version.description
    assert re.search(rf"/runs/{evaluate.id}/artifacts/artifacts/pipeline/README\.md[?][^)]*\)\n$", version.description)
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert model.tags["mlflow.note.content"] == version.description, "the page of the logged model says the same"


def test_a_version_moves_with_its_project(
    register: Callable[..., str], project: Path, store_root: Path, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(PIPELINE, "moves")
    register()
    shutil.copytree(store_root / ".mlflow", project / ".mlflow")
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert "registered before" in register()
    client = client_of(project)
    version = client.get_model_version_by_alias("darkroom", "candidate")
    places = (
        client.get_model_version_download_uri("darkroom", version.version),
        client.get_logged_model(version.source.removeprefix("models:/")).artifact_location,
    )
    for place in places:
        assert Path(place).is_relative_to(project)
        assert content_hash(Path(place) / "artifacts" / "pipeline") == content_hash(PIPELINE)


def test_help_teaches(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["darkroom", "register", "--help"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    said = capsys.readouterr().out
    assert "darkroom serve" in said
    assert 'mlflow models serve -m "models:/darkroom@candidate" --env-manager local' in said
    assert f'"dataframe_records": [{{"prompt": "{EXAMPLE}"}}]' in said


def test_nothing_is_registered_where_nothing_is_tracked(
    register: Callable[..., str], monkeypatch: pytest.MonkeyPatch, store_root: Path
) -> None:
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    monkeypatch.setenv("DVC_ROOT", str(PIPELINE.resolve()))
    assert register() == "DARKROOM_TRACKING=off: nothing is registered\n"
    assert not (PIPELINE / ".mlflow").exists()


def test_what_cannot_be_registered_is_said_in_one_line(register: Callable[..., str]) -> None:
    assert register("--pipeline", "gone", status=1).startswith("darkroom: gone: no such pipeline; ")
    (PIPELINE / "README.md").write_text("# Mine\n")
    assert "README.md: not the model card that evaluate wrote" in register(status=1)
    (PIPELINE / "README.md").unlink()
    said = register(status=1)
    assert said == f"darkroom: {PIPELINE}/README.md: no such model card; run dvc repro evaluate, which writes it\n"
