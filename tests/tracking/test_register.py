"""`darkroom register`, and the registered model over real HTTP, as `mlflow models serve` serves it."""

import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from darkroom import Pipeline, cli
from darkroom.core.artifact import content_hash
from darkroom.data.prepared import Info
from darkroom.evaluation.card import write_card
from darkroom.inference.defaults import EXAMPLE
from darkroom.tracking import stage_run

PIPELINE = Path("artifacts/pipeline")
PROMPT = "a small red circle"
DATA = Info("scenes", 16, 3, {"test": 5, "train": 40}, (), (), {"words": 9}, (), captions=True)
METRICS = {
    "alignment": {"test": {"exact_match": {"value": 0.25, "low": 0.125, "high": 0.5, "n": 5}}},
    "fidelity": {"features": "a judge", "fid": {"value": 2.5, "low": 2.0, "high": 3.0, "n": 5}},
}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n%%EOF\n"
ClientOf = Callable[[Path], mlflow.MlflowClient]
Call = Callable[..., tuple[int, dict[str, Any]]]


def describe(folder: Path, example: str = PROMPT) -> None:
    trained = {"train_unet": {"steps": 10, "batch_size": 2}}
    write_card(folder, DATA, METRICS, trained, example)


@pytest.fixture(scope="module")
def made(parts: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of random networks with its model card."""
    folder: Path = parts.assembled(tmp_path_factory.mktemp("made"))
    describe(folder)
    return folder


@pytest.fixture
def register(
    project: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """darkroom register OPTIONS, in a project with a pipeline -> what it says."""
    shutil.copytree(made, PIPELINE)

    def run(*options: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["darkroom", "register", *options])
        try:
            cli.main()
            left = 0
        except SystemExit as exit:
            left = int(exit.code or 0)
        said = capsys.readouterr()
        assert left == status, said
        return said.err if status else said.out

    return run


def test_a_pipeline_is_one_version_however_often_it_is_registered(
    register: Callable[..., str], client: mlflow.MlflowClient
) -> None:
    describe(PIPELINE, "one")
    first = register()
    assert "just registered; candidate now names it" in first
    assert "MLFLOW_TRACKING_URI='sqlite:///" in first, "the folder's name has to be quoted"
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
        "alignment.test.exact_match": 0.25,
        "fidelity.fid": 2.5,
    }
    assert client.get_run(run.id).outputs.model_outputs[0].model_id == model.model_id
    assert "darkroom-pipeline" in {m.name for m in client.search_registered_models()}


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


def png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def picture(answer: dict[str, Any], row: int = 0) -> Image.Image:
    with Image.open(io.BytesIO(base64.b64decode(answer["predictions"][row]["image"]))) as opened:
        assert opened.format == "PNG"
        opened.load()
        return opened


@pytest.fixture(scope="module")
def ask(made: Path, store_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Rows and parameters -> HTTP status and answer of `mlflow models serve` for the registered pipeline."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("DARKROOM_", "MLFLOW_", "DVC_"))]:
            patch.delenv(name)
        environment = dict(os.environ)
        patch.setenv("DVC_ROOT", str(store_root))
        patch.setattr(sys, "argv", ["darkroom", "register", "--pipeline", str(made)])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    serve = f"-m mlflow models serve -m models:/darkroom@candidate --env-manager local --host 127.0.0.1 --port {port}"
    environment |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{store_root / '.mlflow' / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DARKROOM_DEVICE": "cpu",
        "DARKROOM_THREADS": "1",
    }
    address, log = f"http://127.0.0.1:{port}", elsewhere / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, *serve.split()],
            cwd=elsewhere,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def call(rows: list[dict[str, Any]], **params: Any) -> tuple[int, dict[str, Any]]:
        body = json.dumps({"dataframe_records": rows, "params": params}).encode()
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    try:
        deadline = time.monotonic() + 300  # for machines with much else to do
        while True:
            try:
                with urllib.request.urlopen(f"{address}/ping", timeout=2):
                    break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield call
    finally:
        stop(server, port)


def stop(server: "subprocess.Popen[bytes]", port: int) -> None:
    """End the server and what it started, whatever it takes."""
    os.killpg(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while server.poll() is None or is_open(port):
        if time.monotonic() > deadline:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            pytest.fail("the server did not end when it was told to")
        time.sleep(0.05)


def is_open(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_a_prompt_is_answered_with_the_picture_the_pipeline_draws(ask: Call, made: Path) -> None:
    pipeline = Pipeline.from_pretrained(made, device="cpu")
    how = {"num_inference_steps": 3, "guidance_scale": 2.0, "sampler": "heun"}
    status, answer = ask([{"prompt": PROMPT}, {"prompt": "a large blue square"}], seed=7, **how)
    assert status == 200, answer
    expected = pipeline.text_to_image([PROMPT, "a large blue square"], seeds=[7, 8], **how)
    assert [picture(answer, row).tobytes() for row in range(2)] == [p.tobytes() for p in expected]

    status, answer = ask([{"prompt": PROMPT}])
    assert status == 200, answer
    assert picture(answer).tobytes() == pipeline.text_to_image([PROMPT])[0].tobytes(), "the pipeline's own sampling"


@pytest.mark.parametrize(
    ("rows", "params", "said"),
    [
        ([{"prompt": PROMPT, "image": "not base64!"}], {}, "image of row 0: not base64"),
        ([{"prompt": PROMPT, "image": base64.b64encode(b"text").decode()}], {}, "image of row 0: not a picture of a"),
        ([{"prompt": PROMPT, "image": base64.b64encode(EPS).decode()}], {}, "image of row 0: not a picture of a"),
        ([{"prompt": PROMPT}], {"sampler": "ddin"}, "sampler = 'ddin': unknown; choose from"),
        ([{"prompt": PROMPT}], {"num_inference_steps": 0}, "num_inference_steps = 0"),
        ([{"prompt": PROMPT}], {"seed": -1}, "seed = -1: give 0 or more"),
        ([{"prompt": PROMPT}], {"guidance_scale": "much"}, "guidance_scale"),
        ([{"text": PROMPT}], {}, "prompt"),
        ([{"prompt": 7}], {}, "prompt of row 0 = 7: give a text"),
    ],
)
def test_bad_input_is_answered_with_what_is_wrong_and_no_traceback(
    rows: list[dict[str, Any]], params: dict[str, Any], said: str, ask: Call
) -> None:
    status, answer = ask(rows, **params)
    assert 400 <= status < 500, answer
    assert said in answer["message"]
    assert "Traceback" not in json.dumps(answer)


def test_a_prompt_and_a_picture_are_answered_with_the_picture_changed(ask: Call, made: Path) -> None:
    pipeline = Pipeline.from_pretrained(made, device="cpu")
    (start,) = pipeline.text_to_image([PROMPT], seeds=[3])
    rows = [{"prompt": "a large blue square"}, {"prompt": PROMPT, "image": png(start)}]
    status, answer = ask(rows, seed=5, strength=0.5, num_inference_steps=4)
    assert status == 200, answer
    (expected,) = pipeline.image_to_image([PROMPT], [start], strength=0.5, seeds=[6], num_inference_steps=4)
    assert picture(answer, 1).tobytes() == expected.tobytes()
    (plain,) = pipeline.text_to_image(["a large blue square"], seeds=[5], num_inference_steps=4)
    assert picture(answer, 0).tobytes() == plain.tobytes()


def test_a_photograph_lying_on_its_side_is_drawn_from_upright(ask: Call, made: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[Base.Orientation] = 6  # to be turned by a quarter, clockwise
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", exif=exif)
    text = base64.b64encode(file.getvalue()).decode()
    status, answer = ask([{"prompt": PROMPT, "image": text}], strength=0.5)
    assert status == 200, answer
    with Image.open(file) as lying:
        upright = lying.transpose(Image.Transpose.ROTATE_270)
    (expected,) = Pipeline.from_pretrained(made, device="cpu").image_to_image([PROMPT], [upright], strength=0.5)
    assert picture(answer).size == (12, 16)
    assert picture(answer).tobytes() == expected.tobytes()


def test_a_negative_prompt_reaches_the_pipeline(ask: Call, made: Path) -> None:
    status, answer = ask([{"prompt": PROMPT}], seed=2, negative_prompt="a large blue square")
    assert status == 200, answer
    pipeline = Pipeline.from_pretrained(made, device="cpu")
    (expected,) = pipeline.text_to_image([PROMPT], seeds=[2], negative_prompt="a large blue square")
    assert picture(answer, 0).tobytes() == expected.tobytes()
    (without,) = pipeline.text_to_image([PROMPT], seeds=[2])
    assert expected.tobytes() != without.tobytes()
