"""The frame every stage runs in: its place in dvc.yaml, its summary, and errors as one line and an exit status."""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlflow
import pytest
import torch

from darkroom.config.merging import complete_text
from darkroom.config.params import Params
from darkroom.config.stage_spec import stage_spec
from darkroom.core.artifact import content_hash, read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import Interrupted
from darkroom.maintenance.garbage.leftovers import checkpoints
from darkroom.runner.project_copy import PROFILE, REPRODUCTION
from darkroom.runner.stage import Work, run_stage
from darkroom.tracking.executed_code import DEFINITION, FRAME, OUTSIDE, START

RECIPES = Path(__file__).parents[2] / "recipes"
PIPELINE = """
stages:
  prepare_data:
    cmd: python stages/prepare_data.py
    deps:
    - stages/prepare_data.py
    - src/darkroom/data
    - sources.json
    params:
    - prepare_data
    outs:
    - data/prepared
    metrics:
    - reports/prepare_data/metrics.json:
        cache: false
"""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PREPARED, METRICS = Path("data/prepared"), Path("reports/prepare_data/metrics.json")


@pytest.fixture
def stage_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of one stage, untracked."""
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    Path("dvc.yaml").write_text(PIPELINE)
    Path("params.yaml").write_text(complete_text(RECIPES / "scenes.yaml"))
    for file in ("stages/prepare_data.py", "src/darkroom/data/__init__.py", "sources.json"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("\n")
    handlers, threads = [signal.getsignal(number) for number in SIGNALS], torch.get_num_threads()
    yield project
    for number, handler in zip(SIGNALS, handlers, strict=True):
        signal.signal(number, handler)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def write(params: Params, work: Work) -> Mapping[str, float | str]:
    write_json(PREPARED / "dataset.json", {"image_size": params.prepare_data.image_size})
    write_json(METRICS, {})
    return {"pictures": 20000, "psnr": 31.23456, "kind": "scenes"}


def status_of(body: object = write, trains: bool = False) -> int:
    with pytest.raises(SystemExit) as left:
        run_stage("prepare_data", body, trains)  # type: ignore[arg-type]
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_stage_is_described_by_dvc_yaml_alone(stage_project: Path) -> None:
    here = stage_spec("prepare_data")
    assert here.inputs == [Path("sources.json")]
    assert here.code == [Path("stages/prepare_data.py"), Path("src/darkroom/data")]
    assert here.outputs == [PREPARED, METRICS]
    assert here.params == ["prepare_data"]


def test_a_stage_ends_with_what_it_wrote_and_its_figures(
    stage_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of() == 0
    said = capsys.readouterr().out
    for words in ("prepare_data: done in", "wrote data/prepared (", "pictures: 20000\n", "psnr: 31.23", "kind: scenes"):
        assert words in said


def test_a_tracked_stage_names_its_params_and_where_its_run_is_seen(
    stage_project: Path,
    client: mlflow.MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DARKROOM_TRACKING", "on")
    assert status_of() == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "run: http" in line]
    found = client.get_run(line.split()[1].rsplit("/", 1)[1].split("?")[0])
    assert found.data.params["prepare_data.image_size"] == "32"
    assert not any(key.startswith("train_vae") for key in found.data.params)
    assert found.data.tags["in.sources.json"] == content_hash("sources.json")
    assert found.data.tags["out.data/prepared"] == content_hash(PREPARED)
    assert json.loads(found.data.tags["profile"])["device"].startswith("cpu")
    assert found.data.tags[DEFINITION] == stage_spec("prepare_data").definition
    assert {START, FRAME, OUTSIDE} <= found.data.tags.keys()


def raise_error(params: Params, work: Work) -> Mapping[str, float | str]:
    raise DarkroomError("data/raw: no pictures found; set DARKROOM_DATA")


def test_a_mendable_error_is_one_line_and_status_1(stage_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(raise_error) == 1
    assert capsys.readouterr().err == "darkroom: prepare_data: data/raw: no pictures found; set DARKROOM_DATA\n"


def test_a_bad_parameter_stops_the_stage_before_its_work(
    stage_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("image_size: 32", "image_size: -5"))
    assert status_of() == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "image_size" in said
    assert "-5" in said
    assert not PREPARED.exists()


def test_an_input_that_is_missing_is_named(
    stage_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DARKROOM_TRACKING", "on")
    Path("sources.json").unlink()
    assert status_of() == 1
    assert "sources.json: no such file" in capsys.readouterr().err


def test_an_output_that_was_not_written_is_named(stage_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(lambda params, work: {}) == 1
    assert capsys.readouterr().err == "darkroom: prepare_data: data/prepared was not written\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stage_that_is_stopped_closes_its_run_as_killed(
    number: signal.Signals,
    stage_project: Path,
    client: mlflow.MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DARKROOM_TRACKING", "on")

    def stop(params: Params, work: Work) -> Mapping[str, float | str]:
        work.run.text(number.name, "signal.txt")
        while work.run.id is None:
            work.run.metrics(0, {})
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        raise AssertionError("went on after the signal")

    assert status_of(stop) == 128 + number
    assert capsys.readouterr().err.count("\n") == 1
    experiment = client.get_experiment_by_name("darkroom")
    latest = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"], max_results=1)[0]
    assert latest.info.status == "KILLED"
    assert [a.path for a in client.list_artifacts(latest.info.run_id)] == ["params.yaml", "report", "signal.txt"]
    kept = client.download_artifacts(latest.info.run_id, "params.yaml")
    assert Path(kept).read_bytes() == Path("params.yaml").read_bytes(), "the run says what was asked for"


def test_checkpoints_belong_to_parameters_inputs_and_code(stage_project: Path) -> None:
    found = []

    def body(params: Params, work: Work) -> Mapping[str, float | str]:
        found.append(work.checkpoints)
        return write(params, work)

    smaller = Path("params.yaml").read_text().replace("image_size: 32", "image_size: 16")
    assert status_of(body) == 0
    for file, text in (
        ("sources.json", "2\n"),
        ("src/darkroom/data/__init__.py", "2\n"),
        ("stages/prepare_data.py", "2\n"),
        ("params.yaml", smaller),
    ):
        Path(file).write_text(text)
        assert status_of(body) == 0
    assert len({one.folder for one in found}) == 5
    assert status_of(body) == 0
    assert found[-1].folder == found[-2].folder
    assert (found[0].minutes, found[0].steps) == (2.0, 0)  # what documents promise


def test_checkpoints_go_once_the_lock_file_names_what_they_led_to(stage_project: Path) -> None:
    found = []

    def body(params: Params, work: Work) -> Mapping[str, float | str]:
        assert work.checkpoints.folder is not None
        found.append(work.checkpoints.folder.exists())
        work.checkpoints.folder.mkdir(parents=True, exist_ok=True)
        return write(params, work)

    assert status_of(body) == 0
    assert status_of(body) == 0
    outs = [{"path": str(path), "md5": content_hash(path)} for path in (PREPARED, METRICS)]
    Path("dvc.lock").write_text(json.dumps({"stages": {"prepare_data": {"outs": outs}}}))
    assert status_of(body) == 0
    assert found == [False, True, False]


def test_a_stage_made_again_leaves_the_checkpoints_of_the_project_alone_and_says_how_it_ran(
    stage_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def body(params: Params, work: Work) -> Mapping[str, float | str]:
        assert work.checkpoints.folder is not None
        found.append((work.checkpoints.folder, work.checkpoints.folder.exists(), work.checkpoints.profile))
        work.checkpoints.folder.mkdir(parents=True)
        return write(params, work)

    monkeypatch.setenv("DVC_ROOT", str(stage_project))
    assert status_of(body) == 0
    outs = [{"path": str(path), "md5": content_hash(path)} for path in (PREPARED, METRICS)]
    Path("dvc.lock").write_text(json.dumps({"stages": {"prepare_data": {"outs": outs}}}))
    again = stage_project / "again"
    monkeypatch.setenv(REPRODUCTION, str(again))
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    assert status_of(body, trains=True) == 0
    (before, _, _), (now, was_there, profile) = found
    assert now.is_relative_to(again)
    assert not was_there
    assert before.exists()
    assert read_json(again / PROFILE) == profile
    assert profile["deterministic"] == "false"


def test_a_stage_made_again_that_is_stopped_promises_no_going_on(
    stage_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(REPRODUCTION, str(stage_project / "again"))

    def stop(params: Params, work: Work) -> Mapping[str, float | str]:
        raise Interrupted(signal.SIGTERM, "saved at step 3")

    assert status_of(stop) == 128 + signal.SIGTERM
    assert "dvc repro" not in capsys.readouterr().err


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("saved", [False, True])
def test_out_of_memory_is_a_line_with_the_peak_what_lowers_it_and_the_saved_step(
    stage_project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    saved: bool,
) -> None:
    """Would catch a traceback, a line without remedy, and a training that does not say where it goes on."""
    monkeypatch.setenv("DARKROOM_CHECKPOINT_STEPS", "3" if saved else "0")

    def body(params: Params, work: Work) -> Mapping[str, float | str]:
        for step in range(1, 6):
            work.checkpoints.after(step, {}, 10)
        raise error

    assert status_of(body, trains=True) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("darkroom: prepare_data: out of memory on cpu: ")
    for words in ("iB used at most; ", "prepare_data.limit or image_size", "darkroom params check --memory"):
        assert words in said
    assert ("step 3 is saved; dvc repro resumes from it" if saved else "nothing is saved yet") in said
    assert status_of() == 0, "the stage can be run again"


def test_what_cannot_be_deterministic_says_which_setting_to_change(
    stage_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(params: Params, work: Work) -> Mapping[str, float | str]:
        raise RuntimeError("kthvalue CUDA does not have a deterministic implementation, but you set 'torch.use")

    assert status_of(body) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "deterministic = true: " in said
    assert said.endswith("set DARKROOM_DETERMINISTIC=0")


def test_other_errors_of_the_code_stay_errors_of_the_code(stage_project: Path) -> None:
    def body(params: Params, work: Work) -> Mapping[str, float | str]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_stage("prepare_data", body)


@pytest.mark.parametrize("keys", [["prepare_data"], ["train_vae"], ["train_vae.steps", "prepare_data"]])
def test_the_checkpoint_that_a_stage_writes_is_the_one_that_gc_keeps(
    stage_project: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if the fingerprint is reckoned in two ways: they differed for a stage without a section of its own. And if
    a stage fails at its end that depends on one key of a section."""
    monkeypatch.setenv("DVC_ROOT", str(stage_project))
    Path("dvc.yaml").write_text(PIPELINE.replace("    - prepare_data\n", "".join(f"    - {key}\n" for key in keys)))

    def save(params: Params, work: Work) -> Mapping[str, float | str]:
        assert work.checkpoints.folder is not None
        (work.checkpoints.folder / "step_000000005").mkdir(parents=True)
        return write(params, work)

    assert status_of(save) == 0
    (training,) = Path(".checkpoints/prepare_data").iterdir()
    assert checkpoints(["prepare_data"]) == ([], [])
    Path("sources.json").write_text("others\n")
    assert [item.paths for item in checkpoints(["prepare_data"])[0]] == [(training,)]
