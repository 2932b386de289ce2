"""One run per execution of a stage, against real stores: what a person or an audit later finds there."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run as Recorded
from PIL import Image

from darkroom.core.artifact import content_hash, write_json
from darkroom.core.errors import DarkroomError
from darkroom.tracking import Run, stage_run
from darkroom.tracking.links import LINEAGE
from darkroom.tracking.note import Account, markdown

ClientOf = Callable[[Path], mlflow.MlflowClient]
PARAMS = {"train_vae": {"learning_rate": 1e-3, "block_out_channels": [16, 32], "note": None}}
VAE = Path("artifacts/vae")
PREPARED = Path("data/prepared")


def record(
    stage: str,
    inputs: list[Path],
    outputs: list[Path],
    content: str = "as always",
    figures: dict[str, float] | None = None,
) -> str:
    """Run a small stage that writes `content` to its outputs; the id of the run it left."""
    read = {path.as_posix(): content_hash(path) for path in inputs}
    with stage_run(stage, PARAMS, read, {}, outputs, {"device": "cpu"}) as run:
        for output in outputs:
            write_json(output / "config.json", {"content": content})
            (output / "weights.safetensors").write_bytes(content.encode() * 100)
        run.summary(figures or {})
    assert run.id is not None
    return run.id


def recorded(client: mlflow.MlflowClient, stage: str) -> list[Recorded]:
    experiment = client.get_experiment_by_name("darkroom")
    return list(client.search_runs([experiment.experiment_id], f"attributes.run_name = '{stage}'"))


def test_a_run_tells_what_was_read_done_and_written(project: Path, client: mlflow.MlflowClient) -> None:
    began = time.time()
    maker = record("prepare_data", [], [PREPARED], content=str(project))
    code = project / "src/train.py"
    code.parent.mkdir()
    code.write_text("pass\n")
    made, read = {PREPARED.as_posix(): content_hash(PREPARED)}, {"src/train.py": content_hash(code)}
    with stage_run("train_vae", PARAMS, made, read, [VAE, Path("report.json")], {"threads": "2"}) as run:
        for step in range(1200):
            run.metrics(step, {"loss": 1 / (step + 1), "loss/0-25%": 2.0})
        run.picture(Image.new("RGB", (6, 4), "red"), "samples", step=100)
        run.picture(Image.new("L", (6, 4)), "reconstructions")
        run.text("a text — with more than ASCII", "notes/text.md")
        write_json(VAE / "config.json", {})
        write_json(Path("report.json"), {})
        run.summary({"psnr": 33.25, "kind": "kl", "loss": 0.5})

    found = client.get_run(run.id)
    assert (found.info.run_name, found.info.status) == ("train_vae", "FINISHED")
    assert client.get_run(maker).info.start_time <= (began + 1) * 1000, "the run began before its store was open"
    assert found.data.params == {
        "train_vae.learning_rate": "0.001",
        "train_vae.block_out_channels": "[16, 32]",
        "train_vae.note": "null",
    }
    assert found.data.tags["in.data/prepared"] == content_hash(PREPARED)
    assert found.data.tags["out.artifacts/vae"] == content_hash(VAE)
    assert found.data.tags["out.report.json"] == content_hash("report.json")
    assert json.loads(found.data.tags["profile"]) == {"threads": "2"}
    assert {(i.dataset.name, i.dataset.digest) for i in found.inputs.dataset_inputs} == {
        ("data/prepared", content_hash(PREPARED))
    }
    losses = client.get_metric_history(found.info.run_id, "loss")
    assert sorted((m.step, m.value) for m in losses) == [(step, 1 / (step + 1)) for step in range(1200)]
    assert found.data.metrics == {"loss": 1 / 1200, "loss/0-25_": 2.0, "psnr": 33.25}

    kept = Path(mlflow.artifacts.download_artifacts(found.info.artifact_uri))
    with Image.open(kept / "samples/step_000100.png") as picture:
        assert picture.getpixel((5, 3)) == (255, 0, 0)
    assert (kept / "reconstructions.png").is_file()
    assert (kept / "notes/text.md").read_text(encoding="utf-8") == "a text — with more than ASCII"
    assert (kept / "artifacts/vae/config.json").read_bytes() == (VAE / "config.json").read_bytes()
    manifest = json.loads((kept / "manifest.json").read_text())
    assert manifest["inputs"] == {"data/prepared": content_hash(PREPARED)}
    assert manifest["outputs"]["artifacts/vae"] == content_hash(VAE)
    assert manifest["code"] == {"src/train.py": content_hash(code)}
    assert manifest["made_by"] == {"data/prepared": maker}
    note = found.data.tags["mlflow.note.content"]
    assert (
        f"[prepare_data](#/experiments/{found.info.experiment_id}/runs/{maker}?workflowType=machine_learning)" in note
    )
    assert "psnr: 33.25" in note
    assert "kind: kl" in note


def test_only_a_finished_run_with_the_same_content_is_upstream(project: Path, client: mlflow.MlflowClient) -> None:
    older = record("prepare_data", [], [PREPARED], content="older")
    with pytest.raises(RuntimeError, match="unlucky"), stage_run("unlucky", {}, {}, {}, [PREPARED], {}):
        raise RuntimeError("unlucky")
    (failed,) = recorded(client, "unlucky")
    client.set_tag(failed.info.run_id, "out.data/prepared", content_hash(PREPARED))
    consumer = client.get_run(record("train_vae", [PREPARED], [VAE]))
    assert f"runs/{older}?" in consumer.data.tags["mlflow.note.content"]
    record("prepare_data", [], [PREPARED], content="newer")
    consumer = client.get_run(record("train_vae", [PREPARED], [VAE]))
    assert f"runs/{older}?" not in consumer.data.tags["mlflow.note.content"]


def test_a_stage_that_fails_leaves_a_failed_run_that_says_why(project: Path, client: mlflow.MlflowClient) -> None:
    def fail() -> None:
        with stage_run("fails", {}, {}, {}, [VAE], {}) as run:
            run.metrics(7, {"loss": float("nan")})
            raise DarkroomError("loss is not finite at step 7")

    with pytest.raises(DarkroomError, match="not finite"):
        fail()
    (found,) = recorded(client, "fails")
    assert found.info.status == "FAILED"
    assert "loss is not finite at step 7" in found.data.tags["mlflow.note.content"]
    assert client.get_metric_history(found.info.run_id, "loss")[0].step == 7


def test_an_interrupted_stage_leaves_a_killed_run(project: Path, client: mlflow.MlflowClient) -> None:
    def work(run: Run) -> None:
        while run.id is None:
            run.metrics(0, {})
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), stage_run("interrupted", {}, {}, {}, [], {}) as run:
        work(run)
    assert [run.info.status for run in recorded(client, "interrupted")] == ["KILLED"]


def test_a_missing_output_fails_the_run(project: Path, client: mlflow.MlflowClient) -> None:
    with pytest.raises(DarkroomError, match="artifacts/vae"), stage_run("forgets", {}, {}, {}, [VAE], {}):
        pass
    assert [run.info.status for run in recorded(client, "forgets")] == ["FAILED"]


def test_one_model_version_per_content(project: Path, client: mlflow.MlflowClient) -> None:
    output = Path("artifacts/text_encoder")
    first = record("setup_text_encoder", [], [output], content="one")
    record("setup_text_encoder", [], [output], content="one")
    record("setup_text_encoder", [], [output], content="two")
    versions = client.search_model_versions("name = 'darkroom-text-encoder'")
    assert {int(v.version): v.run_id == first for v in versions} == {1: True, 2: False}
    assert versions[0].tags["content"] == content_hash(output)
    weights = Path(mlflow.artifacts.download_artifacts(versions[0].source)) / "weights.safetensors"
    assert weights.read_bytes() == (output / "weights.safetensors").read_bytes()


def test_large_weights_are_named_not_copied(
    project: Path, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_TRACKING_COPY_MIB", "0.0005")
    output = Path("artifacts/unet")
    run = record("train_unet", [], [output], content="too large to be copied")
    (version,) = client.search_model_versions(f"name = 'darkroom-unet' and tags.content = '{content_hash(output)}'")
    assert version.source == f"dvc://artifacts/unet?md5={content_hash(output)}"
    assert [a.path for a in client.list_artifacts(run, "artifacts/unet")] == ["artifacts/unet/config.json"]


@pytest.mark.parametrize("named", [False, True])
def test_a_project_that_was_copied_keeps_its_runs_and_leaves_the_original_alone(
    named: bool, project: Path, store_root: Path, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # names none
    before = record("train_vae", [], [VAE], content="before")
    shutil.copytree(store_root / ".mlflow", project / ".mlflow")
    shutil.move(store_root / ".mlflow", store_root / "away")
    monkeypatch.setenv("DVC_ROOT", str(project))
    try:
        after = record("train_vae", [], [VAE], content="after")
        assert not (store_root / ".mlflow").exists()
    finally:
        shutil.move(store_root / "away", store_root / ".mlflow")
    client = client_of(project)
    for run in (before, after):
        assert [a.path for a in client.list_artifacts(run, "artifacts")] == ["artifacts/vae"]
    for version in client.search_model_versions("name = 'darkroom-vae'"):
        assert Path(version.source).is_relative_to(project)
        assert Path(version.source).is_dir()


def test_who_made_several_inputs_is_named_once() -> None:
    account = Account("b", {}, {"x": "1", "y": "2", "z": "3"}, {}, {}, "", False, outputs={"out": "4"})
    said = markdown(account, {"x": "[a](1)", "y": "[a](1)"}, {"out": "here"}, {})
    assert said.startswith("Made from [a](1), `z`. Wrote `out`.")


def test_a_hash_in_the_note_leads_to_the_files_behind_it(project: Path, client: mlflow.MlflowClient) -> None:
    """Of inputs to those of the run that made them, of outputs to the run's own; catches hashes that lead nowhere."""
    maker = record("prepare_data", [], [PREPARED], "behind a hash")
    user = record("train_vae", [PREPARED], [VAE], "behind another")
    note = client.get_run(user).data.tags["mlflow.note.content"]
    for path, run in ((PREPARED, maker), (VAE, user)):
        (link,) = re.findall(rf"\[`{re.escape(content_hash(path))}`\]\(([^)]*)\)", note)
        place, _, files = link.partition("?")[0].partition("/artifacts/")
        assert place.endswith(f"/runs/{run}")
        assert client.list_artifacts(run, files), "the run holds them"
    assert note.index("Made from") < note.index(content_hash(VAE))


def test_a_note_says_how_to_get_on_before_anything_that_may_be_cut_off(
    project: Path, client: mlflow.MlflowClient
) -> None:
    """Catches a note that loses its end, and with it the commit, where a stage has many figures."""
    maker = record("prepare_data", [], [PREPARED], "much to say")
    many = {f"alignment.of_a_rather_long_name.{i}": i / 7 for i in range(200)}
    with stage_run("evaluate", PARAMS, {str(PREPARED): content_hash(PREPARED)}, {}, [VAE], {}) as run:
        write_json(VAE / "config.json", {"of": "much to say"})
        run.text("a: 1", "params.yaml")
        run.text("<svg/>", LINEAGE)
        run.summary(many)
    note = client.get_run(run.id).data.tags["mlflow.note.content"]
    assert len(note) <= 5000
    first, ways, picture, rest = note.split("\n\n", 3)
    assert first.startswith("Made from [prepare_data]")
    assert f"[scores](#/experiments/{found_in(client, run.id)}/runs/{run.id}/model-metrics?" in ways
    assert f"/runs/{run.id}/artifacts/params.yaml?" in ways
    assert re.search(rf"\[data set\]\([^)]*/runs/{maker}[?]", ways), "what describes the data, kept or not"
    assert "of no known commit" in ways
    assert picture == f"![lineage](get-artifact?path=report/lineage.svg&run_uuid={run.id})"
    assert content_hash(VAE) in rest
    assert note.endswith("/artifacts/manifest.json?workflowType=machine_learning)\n"), "where all of it stands"
    assert all(line.count("[") == line.count("](") for line in note.splitlines()), "no link is cut in two"


def found_in(client: mlflow.MlflowClient, run: str | None) -> str:
    return str(client.get_run(run).info.experiment_id)


def test_weights_are_one_logged_model_with_their_figures_on_the_data_they_were_measured_on(
    project: Path, client: mlflow.MlflowClient
) -> None:
    """Catches scores that belong to a run alone, a second entry for the same bytes, and points that stand twice."""
    record("prepare_data", [], [PREPARED], "measured on")
    digest, output = content_hash(PREPARED), Path("artifacts/measured")

    def train() -> str:
        with stage_run("train", PARAMS, {str(PREPARED): digest}, {}, [output], {}) as run:
            write_json(output / "config.json", {"of": "measured on"})
            for step, loss in ((10, 0.5), (20, 0.25), (30, 0.75)):
                run.metrics(step, {"held_out/loss": loss})
            run.summary({"held_out/loss": 0.25, "by chance": 1.5, "odd": float("nan"), "kind": "a text"})
        assert run.id is not None
        return run.id

    first, again = train(), train()
    (model,) = client.search_logged_models([found_in(client, first)], "name = 'darkroom-measured'")
    assert (model.source_run_id, model.status) == (first, "READY")
    assert model.tags["content"] == content_hash(output)
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "darkroom-measured", "version": "1"}]
    assert f"/runs/{first}" in model.tags["mlflow.note.content"]
    assert {(m.key, m.value, m.step, m.dataset_name, m.dataset_digest) for m in model.metrics} == {
        ("held_out/loss", 0.25, 20, "data/prepared", digest),
        ("by chance", 1.5, 0, "data/prepared", digest),
    }
    for run in (first, again):
        (named,) = client.get_run(run).outputs.model_outputs
        assert (named.model_id, named.step) == (model.model_id, 20)
        assert [point.step for point in client.get_metric_history(run, "held_out/loss")] == [10, 20, 30]
        assert len(client.get_metric_history(run, "by chance")) == 1


def test_of_data_only_the_description_is_copied(project: Path, client: mlflow.MlflowClient) -> None:
    run = record("prepare_data", [], [PREPARED])
    assert [a.path for a in client.list_artifacts(run, "data/prepared")] == ["data/prepared/config.json"]


def test_the_commit_counts_as_dirty_for_code_but_not_for_what_repro_writes(
    project: Path, client: mlflow.MlflowClient
) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
        done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    for name in ("dvc.yaml", "dvc.lock", "reports/metrics.json", "src/code.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    for changed, dirty in (("dvc.lock", "false"), ("reports/metrics.json", "false"), ("src/code.py", "true")):
        Path(changed).write_text("2\n")
        tags = client.get_run(record("anything", [], [])).data.tags
        assert (tags["mlflow.source.git.commit"], tags["git.dirty"]) == (git("rev-parse", "HEAD"), dirty), changed


def test_off_leaves_nothing(project: Path, store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    with stage_run("train_vae", PARAMS, {}, {}, [VAE], {}) as run:
        run.metrics(0, {"loss": 1.0})
        run.picture(Image.new("RGB", (2, 2)), "samples", step=0)
        write_json(VAE / "config.json", {})
    assert run.address is None
    assert [path.name for path in project.iterdir()] == ["artifacts"]


@pytest.mark.parametrize("name", ["DARKROOM_TRACKING", "DARKROOM_TRACKING_COPY_MIB"])
def test_a_wrong_setting_is_refused(name: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "of")
    with pytest.raises(DarkroomError, match=f"{name} = 'of': give"), stage_run("x", {}, {}, {}, [], {}):
        pass


def test_a_database_that_is_none_stops_the_stage_soon(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(project))
    (project / ".mlflow").mkdir()
    (project / ".mlflow/mlflow.db").write_text("this is no database " * 100)

    def work(run: Run) -> None:
        for step in range(1000):
            run.metrics(step, {"loss": 1.0})
            time.sleep(0.05)

    with pytest.raises(DarkroomError) as caught, stage_run("train_vae", {}, {}, {}, [], {}) as run:
        work(run)
    assert "mlflow.db cannot be opened" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_processes_that_make_the_store_at_once_all_get_their_run(
    project: Path, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(project))
    code = "from darkroom.tracking import stage_run\nwith stage_run('together', {}, {}, {}, [], {}): pass"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    runs = recorded(client_of(project), "together")
    assert [run.info.status for run in runs] == ["FINISHED"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 1.0, 3.0])
def test_a_store_whose_maker_was_killed_is_made_anew(
    seconds: float, project: Path, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(project))
    code = "from darkroom.tracking import stage_run\nwith stage_run('a', {}, {}, {}, [], {}): pass"
    command = [sys.executable, "-c", code]
    maker = subprocess.Popen(command)
    while not any(file.stat().st_size for file in project.glob(".mlflow/*mlflow.db*")):
        assert maker.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    maker.kill()
    maker.wait()
    subprocess.run(command, check=True)
    assert "FINISHED" in [run.info.status for run in recorded(client_of(project), "a")]
    assert {file.name for file in (project / ".mlflow").iterdir()} <= {"mlflow.db", "lock", "artifacts", "journal"}
    left = [file.name for file in (project / ".mlflow" / "journal").rglob("*") if file.is_file()]
    assert left == ["lock"], "all was sent"
