"""`darkroom studio` as a person meets it: a real server, a real browser, and nothing that leaves this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import numpy as np
import pytest
import yaml
from PIL import Image

from darkroom.core.artifact import model_hash
from darkroom.inference.record import Record
from tests.support import pipelines, toy
from tests.support.browser import CHROMIUM, PATIENCE, QUIET
from tests.support.ports import free_port

if TYPE_CHECKING:
    from playwright import sync_api
else:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="gradio is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)")

PROMPT = "a small red circle"
ONE, OTHER = "artifacts/pipeline", "other/pipeline"
COMMAND = [sys.executable, "-c", "from darkroom.cli import main; main()", "studio"]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DARKROOM_", "MLFLOW_", "DVC_"))}
    limits = {"DARKROOM_SERVE_ROWS": "6", "DARKROOM_SERVE_SECONDS": "600"}
    return {**kept, **limits, "DARKROOM_THREADS": "1", "DARKROOM_TRACKING": "off"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pipelines, one of them as dvc.lock has it."""
    root = tmp_path_factory.mktemp("studio")
    pipelines.assembled(root / "artifacts", size=32)
    pipelines.assembled(root / "other", size=32, prediction_type="sample")
    (root / "dvc.yaml").write_text(toy.PIPELINE)
    outs = [{"path": ONE, "md5": model_hash(root / ONE), "size": 1}]
    stages = {"evaluate": {"cmd": "python -P stages/evaluate.py", "deps": [], "outs": outs}}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    return root


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    """The address that `darkroom studio` prints; Ctrl-C ends it within seconds, also with a page open."""
    port = str(free_port())
    server = subprocess.Popen(
        [*COMMAND, ONE, OTHER, "--port", port], cwd=project, env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield next(line.strip() for line in server.stdout if line.startswith("http://"))
    finally:
        asked = time.monotonic()
        server.send_signal(signal.SIGINT)
        try:
            assert server.wait(timeout=60) == 0
        finally:
            server.kill()
        assert time.monotonic() - asked < 30, "that is long even on a machine with much else to do"
    with socket.socket() as s:
        assert s.connect_ex(("127.0.0.1", int(port))) != 0


@pytest.fixture(scope="module")
def asked_for() -> list[str]:
    """The address of everything that the browser asked for."""
    return []


@pytest.fixture(scope="module")
def page(address: str, asked_for: list[str]) -> Iterator["sync_api.Page"]:
    """The page, in a browser that notes what it asks for and can reach no other server."""
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        context = chromium.new_context(viewport={"width": 1400, "height": 1100})
        context.set_default_timeout(PATIENCE)
        context.on("request", lambda request: asked_for.append(request.url))
        here = urlparse(address).netloc
        context.route(
            lambda url: urlparse(url).netloc not in ("", here), lambda route: route.abort("internetdisconnected")
        )
        opened = context.new_page()
        opened.goto(address)
        opened.locator("#draw").wait_for()
        yield opened
        opened.close()
        chromium.close()


def tab(page: "sync_api.Page", name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def seen(page: "sync_api.Page", text: str) -> "sync_api.Locator":
    """The visible place where a text stands, once it does."""
    found = page.get_by_text(text).locator("visible=true").first
    found.wait_for()
    return found


def download(page: "sync_api.Page", name: str, target: Path) -> Path:
    """The file of the chosen picture of a tab, as a browser saves it."""
    with page.expect_download() as saved:
        page.locator(f"#{name}-download").click()
    saved.value.save_as(target)
    return target


def pixels(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.int64)


def test_a_picture_from_a_prompt_that_is_made_again_and_knows_what_made_it(
    page: "sync_api.Page", project: Path, tmp_path: Path
) -> None:
    prompt = page.locator("#draw-prompt textarea")
    assert set(prompt.input_value().split()) <= set(" ".join(pipelines.CAPTIONS).split()), "the model's own words"
    prompt.fill(f"{PROMPT} purple")
    page.locator("#draw-seeds").locator("input, textarea").fill("4-5, 9")
    page.locator("#draw").click()
    seen(page, f"3 drawn by {ONE}")
    seen(page, "purple")
    assert page.locator("#draw-gallery button img").count() >= 3
    page.locator("#draw-gallery button:has(img)").nth(1).click()
    seen(page, "Download seed 5")
    record = Record.read(download(page, "draw", tmp_path / "x.png"))
    assert (record.seeds[record.index or 0], record.model) == (5, model_hash(project / ONE))
    page.locator("#draw-again").click()
    seen(page, "the same file, to the byte")
    page.locator("#draw-lineage").click()
    lineage = seen(page, "as in dvc.lock").inner_text()
    assert "drawn" in lineage
    assert ONE in lineage


def test_a_refusal_names_the_limit_on_the_page(page: "sync_api.Page") -> None:
    """Catches a traceback, or silence."""
    tab(page, "Draw")
    page.locator("#draw-seeds").locator("input, textarea").fill("0-6")
    page.locator("#draw").click()
    seen(page, "DARKROOM_SERVE_ROWS")
    assert page.get_by_text("Traceback").count() == 0
    page.locator("#draw-seeds").locator("input, textarea").fill("0")


def test_inpainting_with_a_mask_that_was_painted(page: "sync_api.Page", tmp_path: Path) -> None:
    """What is not painted over stays as it is, to the pixel."""
    tab(page, "Draw")
    page.locator("#draw").click()
    seen(page, f"1 drawn by {ONE}")
    before = pixels(download(page, "draw", tmp_path / "before.png"))
    tab(page, "Inpaint")
    page.locator("#inpaint-take").click()
    page.locator("#inpaint-picture img").wait_for()
    canvas = page.locator("#painting canvas").first
    canvas.wait_for()
    page.wait_for_timeout(2000)  # until the picture lies on it, of which nothing tells
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y - 40)
    page.mouse.down()
    for step in range(5):
        page.mouse.move(x - 40 + 20 * step, y - 40 + 15 * step, steps=4)
    page.mouse.up()
    page.wait_for_timeout(1000)
    page.locator("#inpaint-draw").click()
    page.get_by_text(f"drawn by {ONE}").locator("visible=true").first.wait_for()
    after = download(page, "inpaint", tmp_path / "after.png")
    record = Record.read(after)
    assert record.mask is not None
    painted = np.asarray(record.mask) > 0
    assert 0.005 < painted.mean() < 0.6, "about as much as the brush went over"
    changed = (pixels(after) != before).any(axis=2)
    assert changed.any()
    assert not changed[~painted].any()


def test_two_models_are_compared_and_each_picture_can_be_downloaded(
    page: "sync_api.Page", project: Path, tmp_path: Path
) -> None:
    """Catches a difference that is not shown, or cannot be hidden, and pictures whose record is lost in a table."""
    tab(page, "Compare")
    page.locator("#compare").click()
    table = page.locator(".dr-grid")
    table.wait_for()
    assert [text.strip() for text in table.locator("thead th").all_inner_texts()] == ["", ONE, OTHER]
    assert table.locator("tbody tr").count() == 2, "two seeds"
    drawn, apart = table.locator("img:not([alt^=difference])"), table.locator("img[alt^=difference]")
    assert (drawn.count(), apart.count()) == (4, 2), "the first column differs from nothing"
    for picture in (*drawn.all(), *apart.all()):
        assert picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 32
    assert "mean" in table.locator("tbody tr").first.inner_text()
    models = []
    for i, picture in enumerate(drawn.all()):
        with page.expect_download() as saved:
            picture.click()
        saved.value.save_as(tmp_path / f"{i}.png")
        models.append(Record.read(tmp_path / f"{i}.png").model)
    assert models == [model_hash(project / one) for one in (ONE, OTHER)] * 2, "each of its column's model"
    page.locator("#apart input").uncheck()
    apart.first.wait_for(state="detached")
    assert drawn.count() == 4


def test_a_film_moves_with_its_slider_and_leaves_its_picture(
    page: "sync_api.Page", project: Path, tmp_path: Path
) -> None:
    tab(page, "Film")
    page.locator("#film").click()
    seen(page, "step 4 of 4")
    assert Record.read(download(page, "film", tmp_path / "end.png")).model == model_hash(project / ONE)
    page.locator("#step input[type=range]").fill("1")
    seen(page, "step 1 of 4")


def test_the_process_of_training_takes_a_picture_apart(page: "sync_api.Page") -> None:
    """Catches a slider that shows the same moment everywhere."""
    tab(page, "Draw")
    page.locator("#draw").click()
    seen(page, f"drawn by {ONE}")
    tab(page, "Film")
    page.locator("#noise-take").click()
    seen(page, "t = 25% of the process")
    shown = page.locator(".dr-film img[alt='the picture with its noise']")
    moments = [shown.get_attribute("src")]
    for value, said in (("0", "t = 0% of the process"), ("40", "t = 100% of the process")):
        page.locator("#time input[type=range]").fill(value)
        seen(page, said)
        moments.append(shown.get_attribute("src"))
        assert shown.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 32
    assert len({*moments}) == 3


def test_no_request_left_this_machine(page: "sync_api.Page", address: str, asked_for: list[str]) -> None:
    """After all that the others did: fonts, scripts, analytics. Runs last."""
    assert len(asked_for) > 30
    here = urlparse(address).netloc
    assert {urlparse(url).netloc for url in asked_for if urlparse(url).scheme not in ("data", "blob")} == {here}
    assert page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'kept')") == "kept", "by its policy"


def test_a_port_that_is_taken_is_one_line_with_a_free_one(project: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        command = [*COMMAND, ONE, "--port", str(port)]
        done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert "is free: darkroom studio --port " in done.stderr
    assert len(done.stderr.splitlines()) == 1
