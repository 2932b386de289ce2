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
from typing import Any

import mlflow
import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from darkroom import Pipeline, cli
from darkroom.core.artifact import content_hash, write_json
from darkroom.data.prepared import Info
from darkroom.evaluation.card import write_card
from darkroom.inference.defaults import EXAMPLE
from darkroom.tracking import stage_run
from darkroom.tracking.store import Store
from tests.support import pipelines

PIPELINE = Path("artifacts/pipeline")
PROMPT = "a small red circle"
DATA = Info("scenes", 16, 3, {"test": 5, "train": 40}, (), (), {"words": 9}, (), captions=True)
FIGURES = {  # of evaluation.json: alignment is well above chance, and so on
    "alignment": {
        "test": {
            "attribute_accuracy": {"value": 0.9, "low": 0.88, "high": 0.92, "n": 200},
            "exact_match": {"value": 0.7, "low": 0.64, "high": 0.76, "n": 200},
            "chance": {"attribute_accuracy": 0.3, "exact_match": 0.01},
        }
    },
    "evaluator": {"valid": True, "reason": "", "real": {}, "chance": {}},
    "fidelity": {
        "features": "a judge",
        "fid": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 200},
        "blur": "a Gaussian of 4 pixels",
        "scale": {"fid": {"real": 0.4, "noise": 50.0, "mean_colour": 9.0, "blurred": 4.0}},
    },
    "withheld": {},
    "judged_with": {"data/prepared": "d.dir", "artifacts/evaluator": "e.dir"},
    "vae": {"psnr": {"value": 30.0, "low": 29.9, "high": 30.1, "n": 200}},
    "sampling": {},
}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n%%EOF\n"
ClientOf = Callable[[Path], mlflow.MlflowClient]
PARAMS = Path(__file__).parents[2] / "params.yaml"
Call = Callable[..., tuple[int, dict[str, Any]]]


def describe(folder: Path, example: str = PROMPT) -> None:
    trained = {"train_unet": {"steps": 10, "batch_size": 2}}
    write_card(folder, DATA, FIGURES, trained, example)
    write_json(folder / "evaluation.json", FIGURES)


def figures(**changes: Any) -> dict[str, Any]:
    """FIGURES with others, by their dotted names with "__" for dots; None takes a figure away."""
    changed: dict[str, Any] = json.loads(json.dumps(FIGURES))
    for name, value in changes.items():
        *path, last = name.split("__")
        place = changed
        for part in path:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return changed


def around(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "n": 200}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of random networks with its model card."""
    folder: Path = pipelines.assembled(tmp_path_factory.mktemp("made"))
    describe(folder)
    return folder


@pytest.fixture
def register(
    project: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """darkroom register OPTIONS, in a project with a pipeline -> what it says."""
    shutil.copytree(made, PIPELINE)
    shutil.copy(PARAMS, "params.yaml")

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
    assert "  serve: darkroom serve\n" in first
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
        patch.chdir(elsewhere)
        shutil.copy(PARAMS, "params.yaml")
        patch.setattr(sys, "argv", ["darkroom", "register", "--pipeline", str(made), "--promote"])
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
    how: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 2.0, "sampler": "heun"}
    status, answer = ask([{"prompt": PROMPT}, {"prompt": "a large blue square"}], seed=7, **how)
    assert status == 200, answer
    expected = pipeline.text_to_image([PROMPT, "a large blue square"], seeds=[7, 8], **how).images
    assert [picture(answer, row).tobytes() for row in range(2)] == [p.tobytes() for p in expected]

    status, answer = ask([{"prompt": PROMPT}])
    assert status == 200, answer
    assert picture(answer).tobytes() == pipeline.text_to_image([PROMPT]).images[0].tobytes(), (
        "the pipeline's own sampling"
    )


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
    (start,) = pipeline.text_to_image([PROMPT], seeds=[3]).images
    rows = [{"prompt": "a large blue square"}, {"prompt": PROMPT, "image": png(start)}]
    status, answer = ask(rows, seed=5, strength=0.5, num_inference_steps=4)
    assert status == 200, answer
    (expected,) = pipeline.image_to_image([PROMPT], [start], strength=0.5, seeds=[6], num_inference_steps=4).images
    assert picture(answer, 1).tobytes() == expected.tobytes()
    (plain,) = pipeline.text_to_image(["a large blue square"], seeds=[5], num_inference_steps=4).images
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
    (expected,) = Pipeline.from_pretrained(made, device="cpu").image_to_image([PROMPT], [upright], strength=0.5).images
    assert picture(answer).size == (12, 16)
    assert picture(answer).tobytes() == expected.tobytes()


def test_a_negative_prompt_reaches_the_pipeline(ask: Call, made: Path) -> None:
    status, answer = ask([{"prompt": PROMPT}], seed=2, negative_prompt="a large blue square")
    assert status == 200, answer
    pipeline = Pipeline.from_pretrained(made, device="cpu")
    (expected,) = pipeline.text_to_image([PROMPT], seeds=[2], negative_prompt="a large blue square").images
    assert picture(answer, 0).tobytes() == expected.tobytes()
    (without,) = pipeline.text_to_image([PROMPT], seeds=[2]).images
    assert expected.tobytes() != without.tobytes()


# How register goes through the gate; what the gate itself decides is in test_gate.py.


@pytest.fixture
def own(
    register: Callable[..., str], project: Path, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch, store_root: Path
) -> mlflow.MlflowClient:
    """The view of a store without any version, for register to begin with."""
    shutil.copytree(store_root / ".mlflow", project / ".mlflow") if (store_root / ".mlflow").exists() else None
    monkeypatch.setenv("DVC_ROOT", str(project))
    Store()
    client = client_of(project)
    if client.search_registered_models("name = 'darkroom'"):
        client.delete_registered_model("darkroom")
    return client


def candidate(client: mlflow.MlflowClient) -> str | None:
    version = client.get_registered_model("darkroom").aliases.get("candidate")
    return None if version is None else str(version)


def model(example: str, **changes: Any) -> None:
    """Another pipeline, with figures."""
    describe(PIPELINE, example)
    write_json(PIPELINE / "evaluation.json", figures(**changes))


def test_what_does_not_reach_the_thresholds_is_registered_and_not_promoted_in_one_line(
    register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    """Catches a register that names a model of brown clouds the candidate, or fails the whole `make repro` for it."""
    model("poor", alignment__test__exact_match=around(0.02), vae__psnr=around(12.0))
    said = register()
    assert "is version 1 of the model darkroom, just registered\n" in said
    (line,) = (line for line in said.splitlines() if "not promoted" in line)
    assert "candidate names no version" in line
    assert "exact_match 0.02 [0, 0.04] is not above chance" in line
    assert "vae.psnr 12 dB is below register.vae_psnr = 25" in line
    assert "darkroom register --promote" in line
    assert "darkroom serve --version 1\n" in said, "there is no alias to serve"
    assert candidate(own) is None
    version = own.get_model_version("darkroom", "1")
    assert version.tags["gate"] == "refused"
    assert "vae.psnr 12 dB" in version.tags["gate.reasons"]
    assert version.description.startswith("**Not promoted to `candidate`**: ")
    assert "## Metrics" in version.description

    model("good")
    assert "is version 2 of the model darkroom, just registered; candidate now names it" in register()
    assert candidate(own) == "2"
    assert own.get_model_version("darkroom", "2").tags["gate"] == "passed"
    model("poor", alignment__test__exact_match=around(0.02), vae__psnr=around(12.0))
    assert "candidate stays version 2" in register()
    assert candidate(own) == "2"


def test_a_promotion_against_the_thresholds_is_recorded_with_the_reasons(
    register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    model("poor", evaluator__valid=False)
    register()
    said = register("--promote")
    assert "registered before; candidate now names it" in said
    assert "promoted by --promote, though the judge is not valid" in said
    version = own.get_model_version_by_alias("darkroom", "candidate")
    assert version.tags["gate"] == "overridden"
    assert version.tags["gate.reasons"] == "the judge is not valid"
    assert version.description.startswith("**Promoted to `candidate` by `--promote`**, though the judge is not valid")
    model("good")
    register("--promote")
    assert own.get_model_version_by_alias("darkroom", "candidate").tags["gate"] == "passed", "nothing was overridden"


def test_the_figures_of_the_candidate_are_read_back_from_its_version(
    register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    """Whatever its folder was called; catches a comparison with the figures of the folder at hand."""
    model("first")
    PIPELINE.rename("artifacts/mine")
    register("--pipeline", "artifacts/mine")
    Path("artifacts/mine").rename(PIPELINE)
    model("worse", alignment__test__exact_match=around(0.5))
    said = register()
    assert "exact_match 0.5 [0.48, 0.52] is below the 0.7 [0.64, 0.76] of version 1" in said, said
    assert candidate(own) == "1"
    model("other judge", alignment__test__exact_match=around(0.5), judged_with={"artifacts/evaluator": "other"})
    said = register()
    assert "not compared with version 1: judged with another artifacts/evaluator and another data/prepared" in said
    assert candidate(own) == "3"


def test_a_pipeline_without_figures_is_promoted_only_when_told_to(
    register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    model("older")
    (PIPELINE / "evaluation.json").unlink()
    assert "it has no evaluation.json" in register()
    assert candidate(own) is None
    assert "though it has no evaluation.json" in register("--promote")
    assert candidate(own) == "1"
    model("newer")
    assert "not compared with version 1: it has no evaluation.json" in register()
    assert candidate(own) == "2"
    (PIPELINE / "evaluation.json").write_text("{broken")
    assert "evaluation.json is not as evaluate writes it" in register()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_keeps_a_model_from_being_promoted(
    value: float, register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    """By the runs that made its parts: MLflow's databases keep infinity as the largest number there is."""
    unet = Path("artifacts/unet")
    unet.mkdir()
    (unet / "weights").write_text(f"{value}")
    with stage_run("train_unet", {}, {}, {}, [unet], {}) as run:
        run.metrics(1, {"train/loss": value})
    model("of this U-Net")
    write_json(PIPELINE / "provenance.json", {"inputs": {"artifacts/unet": content_hash(unet)}})
    said = register()
    assert f"train/loss of train_unet is {value}" in said, said
    assert candidate(own) is None


def test_dvcs_record_is_kept_with_the_run_if_it_is_of_this_pipeline(
    register: Callable[..., str], own: mlflow.MlflowClient, tmp_path: Path
) -> None:
    model("recorded")
    Path("dvc.lock").write_text(f"stages: {{evaluate: {{outs: [{{md5: {content_hash(PIPELINE)}}}]}}}}\n")
    register()
    version = own.get_model_version("darkroom", "1")
    kept = own.download_artifacts(version.run_id, "dvc.lock", str(tmp_path))
    assert Path(kept).read_text() == Path("dvc.lock").read_text()
    model("another")
    register()
    files = {file.path for file in own.list_artifacts(own.get_model_version("darkroom", "2").run_id)}
    assert "dvc.lock" not in files, "it is not that of this pipeline"


def test_the_gate_works_with_a_server(
    register: Callable[..., str], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidate's figures come back over HTTP, and so does that it has none."""
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    (PIPELINE / "evaluation.json").unlink()
    register("--promote")
    model("first")
    assert "not compared with version 1: it has no evaluation.json" in register()
    model("worse", alignment__test__exact_match=around(0.5))
    assert "exact_match 0.5 [0.48, 0.52] is below the 0.7 [0.64, 0.76] of version 2" in register()
    client = mlflow.MlflowClient(tracking_uri=server.address, registry_uri=server.address)
    assert candidate(client) == "2"
    assert client.get_model_version("darkroom", "3").tags["gate"] == "refused"


def test_params_without_the_section_are_named(register: Callable[..., str]) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.partition("\nregister:")[0] + "\n")
    assert "params.yaml: register is missing; add it" in register(status=1)


def test_what_a_system_left_in_a_pipelines_folder_makes_no_other_version(
    register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    """Catches: .DS_Store in the folder, for which it was another content, that no run had made."""
    model("looked at")
    with stage_run("evaluate", {}, {}, {}, [PIPELINE], {}) as run:
        pass
    Path("dvc.lock").write_text(f"stages: {{evaluate: {{outs: [{{md5: {content_hash(PIPELINE)}}}]}}}}\n")
    for name in (".DS_Store", "unet/._config.json", "Thumbs.db"):
        (PIPELINE / name).write_bytes(b"left")
    assert "is version 1 of the model darkroom, just registered" in register()
    assert own.get_model_version("darkroom", "1").run_id == run.id
    assert "dvc.lock" in {file.path for file in own.list_artifacts(run.id)}
    (PIPELINE / "Thumbs.db").unlink()
    assert "registered before" in register()
