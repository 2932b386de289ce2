"""The journal: what a stage told is on disk until the store has it, and comes there once, whatever happens between."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    RESOURCE_DOES_NOT_EXIST,
    RESOURCE_EXHAUSTED,
    TEMPORARILY_UNAVAILABLE,
    UNAUTHENTICATED,
)
from PIL import Image

from darkroom.core.artifact import content_hash, write_json
from darkroom.tracking.note import Account
from darkroom.tracking.outbox.event_log import EVENTS, PROGRESS, EventLog, outbox_folder
from darkroom.tracking.outbox.events import End, Metrics, Picture, to_line
from darkroom.tracking.outbox.pending import pending, replay
from darkroom.tracking.outbox.uploader import SEND_EVERY
from darkroom.tracking.outputs import describe_outputs, keep_outputs
from darkroom.tracking.store import Store, is_transient

UNET = Path("artifacts/unet")


def answered(status: int) -> Exception:
    """What requests raises for an answer with this status."""
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(response=response)


def snapshot(client: mlflow.MlflowClient, run: str, folder: Path) -> dict[str, Any]:
    """All that MLflow holds of a run."""
    found = client.get_run(run)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    kept = Path(mlflow.artifacts.download_artifacts(found.info.artifact_uri, dst_path=str(folder)))
    curves = {key: sorted(client.get_metric_history(run, key), key=str) for key in found.data.metrics}
    return {
        "about": (found.info.status, found.info.start_time, found.info.end_time, found.data.params, found.data.tags),
        "inputs": [(i.dataset.name, i.dataset.digest) for i in found.inputs.dataset_inputs],
        "curves": {key: [(m.step, m.timestamp, repr(m.value)) for m in points] for key, points in curves.items()},
        "files": {str(f.relative_to(kept)): f.read_bytes() for f in sorted(kept.rglob("*")) if f.is_file()},
        "versions": [(v.version, v.run_id, v.source) for v in client.search_model_versions("name = 'darkroom-unet'")],
    }


def test_a_replay_broken_off_anywhere_and_repeated_changes_nothing(
    waiting: ModuleType, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    event_log = EventLog.create(
        waiting.begin("again", params={"steps": 3}, tags={"stage": "again"}, inputs={"data/x": "d" * 32})
    )
    for event in waiting.made_by_a_stage("again", event_log, {"data/x": "d" * 32}):
        event_log.append(event)
    ends = [end for _, end in event_log.events()]
    event_log.release()
    shutil.copytree(event_log.folder, tmp_path / "before")
    store = Store()
    (run,) = replay(store).sent
    assert not event_log.folder.exists()
    once = snapshot(client, run, tmp_path / "once")
    assert once["about"][:3] == ("FINISHED", waiting.NOW, waiting.NOW + 5000)
    assert once["about"][4]["resumed.from_step"] == "5"
    assert once["curves"]["loss"][0] == (0, waiting.NOW, "1.0")
    assert len(once["curves"]["loss"]) == 21
    assert len(once["curves"]["nan"]) == 20
    assert once["files"]["notes/notes.txt"] == "ü".encode()
    assert once["files"]["artifacts/unet/weights.safetensors"] == b"again" * 100
    assert sum(name.startswith("images/samples+step+100+") for name in once["files"]) == 2
    assert once["inputs"] == [("data/x", "d" * 32)]

    for sent in (None, ends[0], ends[10], ends[-3], ends[-2]):
        shutil.copytree(tmp_path / "before", event_log.folder)
        if sent is not None:
            (event_log.folder / PROGRESS).write_text(json.dumps({"run": run, "sent": sent, "ended": False}))
        assert replay(store).sent == (run,)
        assert snapshot(client, run, tmp_path / "again") == once, sent
    assert replay(store).sent == ()


def test_a_picture_in_a_row_is_named_as_mlflow_names_its_own(waiting: ModuleType, client: mlflow.MlflowClient) -> None:
    event_log = EventLog.create(waiting.begin("pictures"))
    event_log.append(Picture("a/b", 7, waiting.NOW, event_log.keep("step_000007.png", Image.new("RGB", (60, 20)).save)))
    event_log.release()
    (run,) = replay(Store()).sent

    def names() -> set[str]:
        return {artifact.path for artifact in client.list_artifacts(run, "images")}

    ours = names()
    client.log_image(run, Image.new("RGB", (60, 20)), key="a/b", step=7, timestamp=waiting.NOW, synchronous=True)

    def shapes(found: set[str]) -> set[str]:
        return {path.replace(path.split("+")[5].split(".")[0], "UUID") for path in found}

    assert len(ours) == 2
    assert shapes(ours) == shapes(names() - ours)
    assert all(len(path.split("+")[5].split(".")[0]) == 36 for path in ours)
    assert client.get_run(run).data.tags["mlflow.loggedImages"] == "True"


def test_the_runs_that_wait_are_sent_oldest_first(waiting: ModuleType, client: mlflow.MlflowClient) -> None:
    write_json(Path("data/prepared/dataset.json"), {"of": str(Path.cwd())})
    digest = content_hash("data/prepared")
    consumer = Account("train", {}, {"data/prepared": digest}, {}, {}, "", False)
    maker = Account("prepare", {}, {}, {}, {}, "", False, {"data/prepared": digest})
    waiting.left(
        waiting.begin("train", time=waiting.NOW + 9), describe_outputs(consumer, 1.0), End("FINISHED", waiting.NOW + 9)
    )
    waiting.left(waiting.begin("prepare"), describe_outputs(maker, 1.0), End("FINISHED", waiting.NOW + 5))
    waiting.left(waiting.begin("elsewhere", store="http://somewhere.else"))
    assert [found.stage for found in pending()] == ["elsewhere", "prepare", "train"]
    replayed = replay(Store())
    first, second = replayed.sent
    assert client.get_run(first).info.run_name == "prepare"
    assert f"runs/{first}?" in client.get_run(second).data.tags["mlflow.note.content"]
    assert (replayed.waiting, replayed.reason) == (0, "")
    assert [found.stage for found in pending()] == ["elsewhere"], "what is meant for another store waits for it"


def test_a_run_that_never_ended_is_killed_when_it_was_last_heard_of(
    waiting: ModuleType, client: mlflow.MlflowClient
) -> None:
    waiting.left(waiting.begin("dies"), Metrics(0, waiting.NOW + 70, {"loss": 1.0}))
    (run,) = replay(Store()).sent
    found = client.get_run(run)
    assert (found.info.status, found.info.end_time) == ("KILLED", waiting.NOW + 70)
    assert "without a word" in found.data.tags["mlflow.note.content"]
    assert outbox_folder().is_dir()
    assert pending() == []


@pytest.mark.parametrize("kept", [True, False])
def test_outputs_that_were_replaced_are_sent_as_they_were_or_only_named(
    kept: bool, waiting: ModuleType, client: mlflow.MlflowClient
) -> None:
    event_log = EventLog.create(waiting.begin(f"replaced {kept}"))
    for event in waiting.made_by_a_stage(f"replaced {kept}", event_log, {}):
        event_log.append(event)
    if kept:
        keep_outputs(event_log)
    event_log.release()
    digest = content_hash(UNET)
    shutil.rmtree(UNET)
    write_json(UNET / "config.json", {"of": "a later stage"})
    (run,) = replay(Store()).sent
    assert client.get_run(run).data.tags["out.artifacts/unet"] == digest
    (version,) = client.search_model_versions(f"name = 'darkroom-unet' and tags.content = '{digest}'")
    if kept:
        assert content_hash(mlflow.artifacts.download_artifacts(version.source)) == digest
    else:
        assert version.source == f"dvc://artifacts/unet?md5={digest}"
        assert client.list_artifacts(run, "artifacts/unet") == []


def test_a_line_that_cannot_be_read_costs_itself_alone(
    waiting: ModuleType, client: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = waiting.left(waiting.begin("unreadable"), Metrics(0, waiting.NOW, {"loss": 1.0}))
    with (folder / EVENTS).open("ab") as file:
        file.write(
            b"\x00\x00\x00\n" + to_line(Metrics(1, waiting.NOW, {"loss": 2.0})) + to_line(End("FINISHED", waiting.NOW))
        )
    (run,) = replay(Store()).sent
    assert [m.value for m in client.get_metric_history(run, "loss")] == [1.0, 2.0]
    assert client.get_run(run).info.status == "FINISHED"
    assert capsys.readouterr().err.count("cannot be read") == 1


@pytest.mark.parametrize(
    ("error", "passes", "passes_once_open"),
    [
        (ConnectionRefusedError(), True, True),
        (MlflowException("database is locked", error_code=TEMPORARILY_UNAVAILABLE), True, True),
        (MlflowException("too many requests", error_code=RESOURCE_EXHAUSTED), True, True),
        (MlflowException("the token ran out", error_code=UNAUTHENTICATED), False, True),
        (MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST), False, False),
        (answered(502), True, True),
        (answered(413), False, False),
        (TypeError(), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_may_pass_is_tried_again_and_nothing_else(error: Exception, passes: bool, passes_once_open: bool) -> None:
    assert (is_transient(error), is_transient(error, was_open=True)) == (passes, passes_once_open)


@pytest.mark.slow
def test_a_stage_killed_with_signal_9_had_sent_all_but_two_seconds(
    waiting: ModuleType, store_root: Path, client: mlflow.MlflowClient
) -> None:
    code = """
import os, time
from darkroom.tracking import stage_run
with stage_run("killed while sending", {}, {}, {}, [], {}) as run:
    while run.address is None:
        time.sleep(0.01)
    for step in range(400):
        run.metrics(step, {"loss": float(step)})
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (found,) = pending()
    assert found.run is not None
    assert client.get_run(found.run).info.status == "RUNNING"
    last = [event for event in waiting.told(found.folder) if isinstance(event, Metrics)][-1]
    sent = client.get_metric_history(found.run, "loss")
    assert 0 < len(sent) < 400
    assert last.time - max(point.timestamp for point in sent) < (SEND_EVERY + 1) * 1000
    assert replay(Store()).sent == (found.run,)
    points = client.get_metric_history(found.run, "loss")
    assert sorted((point.step, point.value) for point in points) == [(step, float(step)) for step in range(400)]
    assert client.get_run(found.run).info.status == "KILLED"
