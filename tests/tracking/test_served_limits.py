"""What a served model does before, between and instead of drawing: limits, a deadline, a queue, an end.

Each test would catch a request that keeps the server busy, or a refusal that comes after the work or without a reason.
"""

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from darkroom.core.errors import DarkroomError
from darkroom.inference.networks import Drawing
from darkroom.inference.pipeline import Pipeline
from darkroom.serving import queueing
from darkroom.serving.limits import MLFLOW_SECONDS, BusyError, EndingError, LimitError, Limits, variable
from darkroom.serving.queueing import Arrival, LeftError, arrival
from darkroom.serving.service import Service
from tests.support import pipelines
from tests.support.diffusion import make_sampling

PROMPT = "a small red circle"
ROW = {"prompt": PROMPT}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline.from_pretrained(pipelines.assembled(tmp_path_factory.mktemp("served")), device="cpu")


@pytest.fixture
def service(pipeline: Pipeline) -> Service:
    return Service(pipeline, Limits(rows=3, steps=20, prompt_bytes=100, picture_bytes=2000, pixels=600))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What work was begun: batches of the network, encodings, embeddings."""
    begun: list[str] = []
    network, prompts, encode = Drawing.network, Pipeline.prompts, Pipeline.encode

    def noting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            begun.append(name)
            return call(*given)

        return noted

    monkeypatch.setattr(Drawing, "network", noting("network", network))
    monkeypatch.setattr(Pipeline, "prompts", noting("text", prompts))
    monkeypatch.setattr(Pipeline, "encode", noting("picture", encode))
    return begun


@pytest.fixture(autouse=True)
def goes_on() -> Iterator[None]:
    yield
    queueing.ending.clear()


def png(width: int, height: int, kind: str = "noise") -> str:
    file = io.BytesIO()
    picture = Image.effect_noise((width, height), 90) if kind == "noise" else Image.new("L", (width, height))
    picture.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


TOO_MUCH: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str, int]] = {
    "rows": ([ROW] * 4, {}, "rows", 4),
    "many rows": ([ROW] * 100_000, {}, "rows", 100_000),
    "steps": ([ROW], {"num_inference_steps": 21}, "steps", 21),
    "endless steps": ([ROW], {"num_inference_steps": 10**9}, "steps", 10**9),
    "steps of every sampler": ([ROW], {"num_inference_steps": 10**9, "sampler": "ode"}, "steps", 10**9),
    "prompt": ([ROW, {"prompt": "a" * 101}], {}, "prompt_bytes", 101),
    "prompt in bytes": ([{"prompt": "é" * 51}], {}, "prompt_bytes", 102),
    "half characters": ([{"prompt": "\ud800" * 40}], {}, "prompt_bytes", 120),
    "negative prompt": ([ROW], {"negative_prompt": "b" * 2000}, "prompt_bytes", 2000),
    "file": ([{**ROW, "image": "A" * 4000}], {}, "picture_bytes", 3000),
    "pixels": ([{**ROW, "image": png(25, 25)}], {}, "pixels", 625),
    "black pixels": ([ROW, {**ROW, "image": png(900, 900, "black")}], {}, "pixels", 810_000),
    "a line": ([{**ROW, "image": png(601, 1, "black")}], {}, "pixels", 601),
}


@pytest.mark.parametrize(("rows", "given", "limit", "value"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_is_beyond_a_limit_is_refused_by_name_before_any_work(
    rows: list[dict[str, Any]], given: dict[str, Any], limit: str, value: int, service: Service, asked: list[str]
) -> None:
    with pytest.raises(LimitError) as refused:
        service.draw(rows, given)
    said = str(refused.value)
    assert f"= {value}: at most {getattr(service.limits, limit)} are taken ({variable(limit)}); " in said
    assert "\n" not in said
    assert (refused.value.status, refused.value.code) == (400, "INVALID_PARAMETER_VALUE")
    assert not asked


@pytest.mark.parametrize(
    ("rows", "given"),
    [
        ([{"prompt": "\ud800"}], {}),
        ([{"prompt": "a\0"}], {}),
        ([{"prompt": None}], {}),
        ([{"prompt": float("nan")}], {}),
        ([ROW, {**ROW, "image": "no!"}], {}),
        ([ROW, {**ROW, "image": "é"}], {}),
        ([ROW, {**ROW, "image": 7}], {}),
        ([ROW], {"seed": -1}),
        ([ROW], {"strength": float("nan")}),
        ([ROW], {"strength": 1.1}),
        ([ROW], {"guidance_scale": float("inf")}),
        ([ROW], {"guidance_scale": float("nan")}),
        ([ROW], {"sampler": "fast"}),
        ([ROW], {"num_inference_steps": 0}),
        ([ROW], {"num_inference_steps": -5}),
        ([ROW], {"negative_prompt": 7}),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line_before_any_work(
    rows: list[dict[str, Any]], given: dict[str, Any], service: Service, asked: list[str]
) -> None:
    with pytest.raises(DarkroomError) as refused:
        service.draw(rows, given)
    assert "\n" not in str(refused.value)
    assert not asked


def test_what_is_within_the_limits_is_drawn_as_the_pipeline_draws_it(service: Service, pipeline: Pipeline) -> None:
    """Pictures of several sizes in one request too: each as if it were alone."""
    starts = [Image.effect_noise((20, 10), 90), Image.effect_noise((10, 20), 90)]
    texts = []
    for start in starts:
        file = io.BytesIO()
        start.save(file, format="PNG")
        texts.append(base64.b64encode(file.getvalue()).decode())
    rows: list[dict[str, Any]] = [
        {**ROW, "image": texts[0]},
        {**ROW, "image": float("nan")},
        {**ROW, "image": texts[1]},
    ]
    drawn = service.draw(rows, {"seed": 5, "strength": 0.5, "negative_prompt": ""})
    for place, start in ((0, starts[0]), (2, starts[1])):
        (expected,) = pipeline.image_to_image([PROMPT], [start], strength=0.5, seeds=[5 + place]).images
        assert drawn[place].tobytes() == expected.tobytes()
    assert drawn[1].tobytes() == pipeline.text_to_image([PROMPT], seeds=[6]).images[0].tobytes()


def test_a_model_is_always_taken_at_its_own_size(pipeline: Pipeline) -> None:
    side = pipeline.info.image_size
    small = Service(pipeline, Limits(pixels=1))
    assert len(small.draw([ROW, {**ROW, "image": png(side, side)}], {})) == 2
    assert Service(pipeline, Limits()).limits.pixels == 16 * side**2


def test_large_pictures_are_drawn_a_few_at_a_time(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a request whose rows, each within the limits, fill the memory together."""
    sizes: list[int] = []
    encode = Pipeline.encode

    def noting(self: Pipeline, pictures: torch.Tensor) -> torch.Tensor:
        sizes.append(pictures.shape[0] * pictures.shape[2] * pictures.shape[3])
        return encode(self, pictures)

    monkeypatch.setattr(Pipeline, "encode", noting)
    side = pipeline.info.image_size
    rows = [{**ROW, "image": png(4 * side, 4 * side)}] * 10
    Service(pipeline, Limits()).draw(rows, {"num_inference_steps": 1, "strength": 1.0})
    assert len(sizes) > 1
    assert max(sizes) <= 64 * side**2


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 1000), ("ode", 2)])
def test_drawing_stops_at_its_deadline(sampler: str, steps: int, tmp_path: Path, asked: list[str]) -> None:
    """Of ode too, whose steps are hundreds of evaluations apart: catches a look between steps alone."""
    folder = pipelines.assembled(tmp_path, sampling=make_sampling(sampler, steps, 3.0, "linspace"))
    service = Service(Pipeline.from_pretrained(folder, device="cpu"), Limits(seconds=1.0))
    service.draw([ROW], {"sampler": "ddim", "num_inference_steps": 2})
    first, began = len(asked), time.monotonic()
    with pytest.raises(
        LimitError, match=r"seconds = \d+\.\d: at most 1 are given .*DARKROOM_SERVE_SECONDS.*fewer rows"
    ):
        service.draw([ROW] * 64, {})
    assert time.monotonic() - began < 10
    assert "network" in asked[first:]
    assert len(service.draw([ROW], {"sampler": "ddim", "num_inference_steps": 2})) == 1, "the next is served"


def test_the_deadline_counts_from_arrival(pipeline: Pipeline, asked: list[str]) -> None:
    service = Service(pipeline, Limits(seconds=5.0))
    token = arrival.set(Arrival(time.monotonic() - 6))
    try:
        with pytest.raises(BusyError, match="waiting for others: at most 5 are given"):
            service.draw([ROW], {})
    finally:
        arrival.reset(token)
    assert not asked


def test_drawing_stops_where_the_client_has_left(pipeline: Pipeline) -> None:
    came = Arrival()
    service = Service(pipeline, Limits())
    threading.Timer(0.5, came.left.set).start()
    token, began = arrival.set(came), time.monotonic()
    try:
        with pytest.raises(LeftError):
            service.draw([ROW] * 64, {"num_inference_steps": 1000})
    finally:
        arrival.reset(token)
    assert time.monotonic() - began < 10


def test_an_end_is_looked_at_between_evaluations_and_by_all_who_wait(pipeline: Pipeline) -> None:
    service = Service(pipeline, Limits())
    with ThreadPoolExecutor(4) as pool:
        long = [pool.submit(service.draw, [ROW] * 64, {"num_inference_steps": 1000}) for _ in range(4)]
        time.sleep(0.5)
        assert not any(one.done() for one in long)
        queueing.ending.set()
        began = time.monotonic()
        for one in long:
            error = one.exception(timeout=10)
            assert isinstance(error, EndingError)
            assert error.status == 503
    assert time.monotonic() - began < 8
    with pytest.raises(EndingError):
        service.draw([ROW], {})


def test_limits_are_read_from_the_environment() -> None:
    given = {variable(one.name): "7" for one in fields(Limits)}
    assert Limits.from_environment(given) == Limits(**{one.name: 7 for one in fields(Limits)})
    assert Limits.from_environment({}) == Limits()
    assert Limits.from_environment({}).seconds == 50
    assert Limits.from_environment({"DARKROOM_SERVE_SECONDS": "2.5"}).seconds == 2.5


def test_the_deadline_comes_before_mlflows_own() -> None:
    """Catches `mlflow models serve --timeout 12`, which answers 504 while the work goes on."""
    assert Limits.from_environment({MLFLOW_SECONDS: "12"}).seconds == 10
    assert Limits.from_environment({MLFLOW_SECONDS: "12", "DARKROOM_SERVE_SECONDS": "3"}).seconds == 3
    assert Limits.from_environment({MLFLOW_SECONDS: "120", "DARKROOM_SERVE_SECONDS": "100"}).seconds == 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROWS", "many"),
        ("ROWS", "0"),
        ("ROWS", "-1"),
        ("ROWS", "2.5"),
        ("STEPS", "inf"),
        ("SECONDS", "nan"),
        ("SECONDS", "inf"),
        ("SECONDS", "0"),
        ("WAITING", "-1"),
        ("NOTHING", "1"),
    ],
)
def test_a_limit_that_is_none_is_named(name: str, value: str) -> None:
    with pytest.raises(DarkroomError, match=f"^DARKROOM_SERVE_{name}") as refused:
        Limits.from_environment({f"DARKROOM_SERVE_{name}": value})
    assert "\n" not in str(refused.value)


def test_the_documented_limits_are_the_real_ones() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    for name, value in Limits().described().items():
        assert f"| `{name}` | {value:.10g} |" in page.replace(",", ""), name
