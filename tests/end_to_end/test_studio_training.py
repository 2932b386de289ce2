"""The studio beside a training: its latest average, two of its checkpoints, and versions of the registry, compared.

Faults caught: an average that is not the newest, a page that knows only what was there when it was opened, a
checkpoint that its training removes while it is drawn with.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import pytest
import yaml

from darkroom.studio.checkpoints import TRAININGS
from darkroom.studio.models import LATEST
from tests.support.browser import CHROMIUM, PATIENCE, QUIET
from tests.support.ports import free_port
from tests.support.projects import environment_of, run_darkroom

if TYPE_CHECKING:
    from playwright import sync_api
else:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="gradio is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)")

ONE = "artifacts/pipeline"
STUDIO = [sys.executable, "-c", "from darkroom.cli import main; main()", "studio"]
EVERY = 40  # steps between two checkpoints


@pytest.fixture(scope="module")
def project(small_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished project whose model is registered, and whose parameters ask for a training without end."""
    root = tmp_path_factory.mktemp("training") / "darkroom"
    shutil.copytree(small_pipeline, root, symlinks=True)
    run_darkroom(root, "register", "--promote")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["train_unet"] |= {"steps": 1_000_000, "validate_every": 100_000, "sample_every": 100_000}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return root


@pytest.fixture(scope="module")
def training(project: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A training of the U-Net that runs, and has saved a checkpoint."""
    environment = environment_of(project) | {"DARKROOM_CHECKPOINT_STEPS": str(EVERY), "DARKROOM_TRACKING": "off"}
    command = [sys.executable, "-P", "stages/train_unet.py"]
    process = subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.DEVNULL)
    try:
        _saved(project, process, 0)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def page(project: Path, training: "subprocess.Popen[bytes]") -> Iterator["sync_api.Page"]:
    """The studio, opened while the training runs, in a browser that can reach no other server."""
    command = [*STUDIO, "--port", str(free_port())]
    server = subprocess.Popen(command, cwd=project, env=environment_of(project), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = next(line.strip() for line in server.stdout if line.startswith("http://"))
        with sync_api.sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
            opened = chromium.new_page(viewport={"width": 1400, "height": 1100})
            opened.set_default_timeout(PATIENCE)
            here = urlparse(address).netloc
            opened.route(lambda url: urlparse(url).netloc not in ("", here), lambda route: route.abort())
            opened.goto(address)
            opened.locator("#draw").wait_for()
            yield opened
            chromium.close()
    finally:
        server.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            server.wait(timeout=60)
        server.kill()


def _steps(project: Path) -> list[int]:
    """The steps of the checkpoints that are there."""
    return sorted(int(path.name.removeprefix("step_")) for path in (project / TRAININGS).glob("*/step_*"))


def _saved(project: Path, process: "subprocess.Popen[bytes]", after: int) -> None:
    """Wait until a checkpoint of a later step is there."""
    deadline = time.monotonic() + PATIENCE / 1000
    while max(_steps(project), default=0) <= after:
        assert process.poll() is None, "the training ended"
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.05)


def _choose(page: "sync_api.Page", dropdown: str, *names: str) -> None:
    """Choose in a dropdown; one of several choices stays open for the next."""
    page.locator(f"#{dropdown} input").click()
    for name in names:
        page.get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")


def _drawn_step(page: "sync_api.Page", seed: int) -> int:
    """Draw the picture of a seed that was not drawn before; the step whose average did."""
    page.locator("#draw-seeds").locator("input, textarea").fill(str(seed))
    page.locator("#draw").click()
    page.get_by_text(f"Download seed {seed}", exact=True).wait_for()
    said = page.get_by_text("1 drawn by train_unet").locator("visible=true").first
    return int(said.inner_text().split(", step ")[1].split(" in ")[0].replace(",", ""))


def test_the_latest_average_draws_while_the_training_runs(
    page: "sync_api.Page", project: Path, training: "subprocess.Popen[bytes]"
) -> None:
    _choose(page, "model", LATEST)
    first = _drawn_step(page, 1)
    _saved(project, training, first)
    assert _drawn_step(page, 2) > first, "it stays with the average that it began with"
    assert training.poll() is None, "the training goes on"
    assert page.get_by_text("are not what this training began with").count() == 0


def test_two_checkpoints_of_a_training_and_a_registered_version_are_compared(
    page: "sync_api.Page", project: Path, training: "subprocess.Popen[bytes]"
) -> None:
    training.send_signal(signal.SIGTERM)  # which keeps its last two
    training.wait(timeout=PATIENCE / 1000)
    older, newer = _steps(project)[-2:]
    page.locator("#refresh").click()
    page.get_by_text(f"is of step {newer:,}").wait_for()
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.locator("#compared .remove-all").click()
    (key,) = (path.name[:4] for path in (project / TRAININGS).iterdir() if list(path.glob("step_*")))
    names = [ONE, *(f"train_unet {key}, step {step:,}" for step in (older, newer)), "registered version 1 (candidate)"]
    _choose(page, "compared", *names)
    page.locator("#compare").click()
    table = page.locator(".dr-grid")
    table.wait_for()
    assert [text.strip() for text in table.locator("thead th").all_inner_texts()] == ["", *names]
    told = [cell.inner_text().strip() for cell in table.locator("tbody tr").first.locator("td").all()]
    assert told[0] == ""
    assert all(text.startswith("mean ") for text in told[1:3]), "both averages draw something else"
    assert told[3] == "identical", "the version is the pipeline that was registered"
