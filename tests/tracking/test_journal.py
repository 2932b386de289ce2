"""The journal: what a stage told is on disk until the store has it, and comes there once, whatever happens between."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
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
from darkroom.tracking.delivery import TOGETHER, _together
from darkroom.tracking.events import Begin, End, Event, File, Metrics, Outputs, Picture, Tags, from_line, to_line
from darkroom.tracking.journal import pending, replay
from darkroom.tracking.logbook import EVENTS, PROGRESS, Logbook, journal
from darkroom.tracking.note import Account
from darkroom.tracking.outputs import keep_outputs, written
from darkroom.tracking.sender import SEND_EVERY
from darkroom.tracking.store import Store, may_pass

NOW = 1_700_000_000_000
UNET = Path("artifacts/unet")


@pytest.fixture
def project(project: Path, store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Here each test has a journal of its own over the common store."""
    shutil.rmtree(store_root / ".mlflow/journal", ignore_errors=True)
    return project


def answered(status: int) -> Exception:
    """What requests raises for an answer with this status."""
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(response=response)


def begin(stage: str, **more: Any) -> Begin:
    return Begin(**{"stage": stage, "time": NOW, "store": "", "params": {}, "tags": {}, "inputs": {}} | more)


def left(begin: Begin, *events: Event) -> Path:
    """The folder of a logbook whose stage is gone."""
    logbook = Logbook.create(begin)
    for event in events:
        logbook.append(event)
    logbook.release()
    return logbook.folder


def told(folder: Path) -> list[Event | None]:
    """What a later process reads in a logbook."""
    logbook = Logbook.take(folder)
    if logbook is None:
        return []
    events = [event for event, _ in logbook.events()]
    logbook.release()
    return events


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; how that ended, as os.waitpid says."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def some_event(draw: random.Random) -> Event:
    def text() -> str:
        return "".join(draw.choice('aZ9 /%ß漢\n\\"\u2028\x00😀') for _ in range(draw.randrange(9)))

    def number() -> float:
        return draw.choice([draw.gauss(0, 1), draw.gauss(0, 1) * 10 ** draw.randrange(-300, 300), float("inf"), -0.0])

    texts = {text(): text() for _ in range(draw.randrange(4))}
    values = {text(): number() for _ in range(draw.randrange(400))}
    return draw.choice(
        [
            Begin(text(), draw.randrange(2**45), text(), {text(): [1, None, number()]}, texts, texts),
            Metrics(draw.randrange(2**40), draw.randrange(2**45), values),
            Metrics(draw.randrange(2**40), draw.randrange(2**45), {"loss": number()}),
            Tags(texts),
            File(text(), text()),
            Picture(text(), draw.randrange(2**40), draw.randrange(2**45), text()),
            Outputs({"figures": values}, text(), {text(): 1}, {text(): [text()]}, [text()]),
            End(text(), draw.randrange(2**45)),
        ]
    )


def test_an_event_is_one_line_and_comes_back_as_it_was() -> None:
    draw = random.Random(0)
    for _ in range(300):
        event = some_event(draw)
        line = to_line(event)
        assert line.count(b"\n") == 1
        assert from_line(line) == event
    nan = from_line(to_line(Metrics(0, 0, {"loss": float("nan")})))
    assert repr(nan) == repr(Metrics(0, 0, {"loss": float("nan")}))
    for line in (b"\n", b"{}\n", b"3\n", b'{"kind":"fax"}\n', b'{"kind":"tags"}\n', b"\xff\n", to_line(event)[:-9]):
        assert from_line(line) is None


def test_what_is_sent_together_is_everything_in_order(project: Path) -> None:
    draw = random.Random(1)
    events = [begin("portions"), *(some_event(draw) for _ in range(300))]
    logbook = Logbook.create(begin("portions"))
    for event in events[1:]:
        logbook.append(event)
    portions = list(_together(logbook))
    assert [event for portion, _ in portions for event in portion] == events
    for portion, _ in portions:
        points = sum(len(event.values) for event in portion if isinstance(event, Metrics))
        assert len(portion) == 1 or (points <= TOGETHER and all(isinstance(event, Metrics) for event in portion))
    assert any(len(portion) > 1 for portion, _ in portions)
    sizes = {after: len(portion) for portion, after in portions}
    logbook.note("run", sorted(sizes)[9], ended=False)
    assert list(_together(logbook)) == portions[10:], "goes on where it stopped"
    logbook.release()


def test_a_line_torn_anywhere_costs_that_line_only(project: Path) -> None:
    events = [begin("torn"), Metrics(1, NOW, {"loss": 0.5}), Tags({"a": "ü"}), End("FINISHED", NOW)]
    folder = left(*events)  # type: ignore[arg-type]
    whole = (folder / EVENTS).read_bytes()
    for cut in range(len(whole), -1, -1):
        folder.mkdir(exist_ok=True)
        (folder / EVENTS).write_bytes(whole[:cut])
        assert told(folder) == events[: whole[:cut].count(b"\n")]
    assert not folder.exists(), "without a beginning there is nothing to send"


def test_a_torn_line_is_gone_before_the_next_is_written(project: Path) -> None:
    folder = left(begin("torn"))
    with (folder / EVENTS).open("ab") as file:
        file.write(b'{"kind": "met')
    logbook = Logbook.take(folder)
    assert logbook is not None
    logbook.append(End("KILLED", NOW))
    logbook.release()
    assert told(folder) == [begin("torn"), End("KILLED", NOW)]


def test_a_stage_killed_with_signal_9_leaves_all_it_told(project: Path) -> None:
    def work() -> None:
        logbook = Logbook.create(begin("killed"))
        for step in range(500):
            logbook.append(Metrics(step, NOW, {"loss": 1 / (step + 1)}))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work) == signal.SIGKILL
    (found,) = pending()
    assert (found.stage, found.began, found.run) == ("killed", NOW, None)
    assert told(found.folder)[1:] == [Metrics(step, NOW, {"loss": 1 / (step + 1)}) for step in range(500)]


def test_a_full_disk_costs_what_is_told_meanwhile(project: Path) -> None:
    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        logbook = Logbook.create(begin("full"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        refused = 0
        for step in range(100):
            if step == 90:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            try:
                logbook.append(Metrics(step, NOW, {"loss": 1.0}))
            except OSError:
                refused += 1
        os._exit(0 if refused > 50 else 2)

    assert in_child(work) == 0
    (found,) = pending()
    steps = [event.step for event in told(found.folder)[1:] if isinstance(event, Metrics)]
    assert None not in told(found.folder)
    assert steps[0] == 0
    assert steps[-10:] == list(range(90, 100))


def test_a_stage_at_work_is_left_alone(project: Path) -> None:
    logbook = Logbook.create(begin("at work"))
    assert pending() == []
    assert Logbook.take(logbook.folder) is None
    logbook.release()
    assert [found.stage for found in pending()] == ["at work"]


def made_by_a_stage(stage: str, logbook: Logbook, inputs: dict[str, str]) -> list[Event]:
    """One of everything, with the files that belong to it in the logbook and on disk."""
    write_json(UNET / "config.json", {"of": stage})
    (UNET / "weights.safetensors").write_bytes(stage.encode() * 100)
    account = Account(stage, {"steps": 3}, inputs, {}, {"device": "cpu"}, "", False, {str(UNET): content_hash(UNET)})
    picture = logbook.keep("step_000100.png", Image.new("RGB", (6, 4), "red").save)
    text = logbook.keep("notes.txt", lambda path: path.write_text("ü", encoding="utf-8"))
    return [
        *(Metrics(step, NOW + step, {"loss": 1 / (step + 1), "nan": float("nan")}) for step in range(20)),
        File("notes/notes.txt", text),
        Tags({"resumed.from_step": "5"}),
        Picture("samples", 100, NOW + 30, picture),
        Metrics(20, NOW + 40, {"loss": 0.01}),
        written(account, copy_mib=64.0),
        End("FINISHED", NOW + 5000),
    ]


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
    project: Path, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    logbook = Logbook.create(begin("again", params={"steps": 3}, tags={"stage": "again"}, inputs={"data/x": "d" * 32}))
    for event in made_by_a_stage("again", logbook, {"data/x": "d" * 32}):
        logbook.append(event)
    ends = [end for _, end in logbook.events()]
    logbook.release()
    shutil.copytree(logbook.folder, tmp_path / "before")
    store = Store()
    (run,) = replay(store).sent
    assert not logbook.folder.exists()
    once = snapshot(client, run, tmp_path / "once")
    assert once["about"][:3] == ("FINISHED", NOW, NOW + 5000)
    assert once["about"][4]["resumed.from_step"] == "5"
    assert once["curves"]["loss"][0] == (0, NOW, "1.0")
    assert len(once["curves"]["loss"]) == 21
    assert len(once["curves"]["nan"]) == 20
    assert once["files"]["notes/notes.txt"] == "ü".encode()
    assert once["files"]["artifacts/unet/weights.safetensors"] == b"again" * 100
    assert sum(name.startswith("images/samples+step+100+") for name in once["files"]) == 2
    assert once["inputs"] == [("data/x", "d" * 32)]

    for sent in (None, ends[0], ends[10], ends[-3], ends[-2]):
        shutil.copytree(tmp_path / "before", logbook.folder)
        if sent is not None:
            (logbook.folder / PROGRESS).write_text(json.dumps({"run": run, "sent": sent, "ended": False}))
        assert replay(store).sent == (run,)
        assert snapshot(client, run, tmp_path / "again") == once, sent
    assert replay(store).sent == ()


def test_a_picture_in_a_row_is_named_as_mlflow_names_its_own(project: Path, client: mlflow.MlflowClient) -> None:
    logbook = Logbook.create(begin("pictures"))
    logbook.append(Picture("a/b", 7, NOW, logbook.keep("step_000007.png", Image.new("RGB", (60, 20)).save)))
    logbook.release()
    (run,) = replay(Store()).sent

    def names() -> set[str]:
        return {artifact.path for artifact in client.list_artifacts(run, "images")}

    ours = names()
    client.log_image(run, Image.new("RGB", (60, 20)), key="a/b", step=7, timestamp=NOW, synchronous=True)

    def shapes(found: set[str]) -> set[str]:
        return {path.replace(path.split("+")[5].split(".")[0], "UUID") for path in found}

    assert len(ours) == 2
    assert shapes(ours) == shapes(names() - ours)
    assert all(len(path.split("+")[5].split(".")[0]) == 36 for path in ours)
    assert client.get_run(run).data.tags["mlflow.loggedImages"] == "True"


def test_the_runs_that_wait_are_sent_oldest_first(project: Path, client: mlflow.MlflowClient) -> None:
    write_json(Path("data/prepared/dataset.json"), {"of": str(project)})
    digest = content_hash("data/prepared")
    consumer = Account("train", {}, {"data/prepared": digest}, {}, {}, "", False)
    maker = Account("prepare", {}, {}, {}, {}, "", False, {"data/prepared": digest})
    left(begin("train", time=NOW + 9), written(consumer, 1.0), End("FINISHED", NOW + 9))
    left(begin("prepare"), written(maker, 1.0), End("FINISHED", NOW + 5))
    left(begin("elsewhere", store="http://somewhere.else"))
    assert [found.stage for found in pending()] == ["elsewhere", "prepare", "train"]
    replayed = replay(Store())
    first, second = replayed.sent
    assert client.get_run(first).info.run_name == "prepare"
    assert f"runs/{first}?" in client.get_run(second).data.tags["mlflow.note.content"]
    assert (replayed.waiting, replayed.reason) == (0, "")
    assert [found.stage for found in pending()] == ["elsewhere"], "what is meant for another store waits for it"


def test_a_run_that_never_ended_is_killed_when_it_was_last_heard_of(project: Path, client: mlflow.MlflowClient) -> None:
    left(begin("dies"), Metrics(0, NOW + 70, {"loss": 1.0}))
    (run,) = replay(Store()).sent
    found = client.get_run(run)
    assert (found.info.status, found.info.end_time) == ("KILLED", NOW + 70)
    assert "without a word" in found.data.tags["mlflow.note.content"]
    assert journal().is_dir()
    assert pending() == []


@pytest.mark.parametrize("kept", [True, False])
def test_outputs_that_were_replaced_are_sent_as_they_were_or_only_named(
    kept: bool, project: Path, client: mlflow.MlflowClient
) -> None:
    logbook = Logbook.create(begin(f"replaced {kept}"))
    for event in made_by_a_stage(f"replaced {kept}", logbook, {}):
        logbook.append(event)
    if kept:
        keep_outputs(logbook)
    logbook.release()
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
    project: Path, client: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = left(begin("unreadable"), Metrics(0, NOW, {"loss": 1.0}))
    with (folder / EVENTS).open("ab") as file:
        file.write(b"\x00\x00\x00\n" + to_line(Metrics(1, NOW, {"loss": 2.0})) + to_line(End("FINISHED", NOW)))
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
    assert (may_pass(error), may_pass(error, was_open=True)) == (passes, passes_once_open)


@pytest.mark.slow
def test_a_stage_killed_with_signal_9_had_sent_all_but_two_seconds(
    project: Path, store_root: Path, client: mlflow.MlflowClient
) -> None:
    code = """
import os, time
from darkroom.tracking import stage_run
with stage_run("killed while sending", {}, [], [], [], {}) as run:
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
    last = [event for event in told(found.folder) if isinstance(event, Metrics)][-1]
    sent = client.get_metric_history(found.run, "loss")
    assert 0 < len(sent) < 400
    assert last.time - max(point.timestamp for point in sent) < (SEND_EVERY + 1) * 1000
    assert replay(Store()).sent == (found.run,)
    points = client.get_metric_history(found.run, "loss")
    assert sorted((point.step, point.value) for point in points) == [(step, float(step)) for step in range(400)]
    assert client.get_run(found.run).info.status == "KILLED"
