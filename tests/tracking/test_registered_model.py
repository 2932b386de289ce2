"""The registered model over real HTTP, as `mlflow models serve` serves it."""

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

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from darkroom import Pipeline, cli
from tests.support.loading import load_script
from tests.support.registering import PARAMS, PROMPT

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n%%EOF\n"
Call = Callable[..., tuple[int, dict[str, Any]]]
model_server: Any = load_script(Path(__file__).parents[2] / "benchmarks" / "model_server.py")


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
    serve = "-m mlflow models serve -m models:/darkroom@candidate --env-manager local --host 127.0.0.1"
    environment |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{store_root / '.mlflow' / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DARKROOM_DEVICE": "cpu",
        "DARKROOM_THREADS": "1",
    }

    def call(rows: list[dict[str, Any]], **params: Any) -> tuple[int, dict[str, Any]]:
        body = json.dumps({"dataframe_records": rows, "params": params}).encode()
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    with model_server.started(serve.split(), elsewhere, environment, elsewhere / "log") as server:
        address = f"http://127.0.0.1:{server.port}"
        yield call
        stop(server.process, server.port)


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
