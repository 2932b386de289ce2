"""What a person finds in the browser after `dvc repro`: runs, curves, pictures, weights, and where they came from."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import pytest
import yaml
from PIL import Image

from darkroom.core.artifact import content_hash
from tests.support.browser import CHROMIUM, browser_on, user_interface
from tests.support.projects import run_darkroom

if TYPE_CHECKING:
    from playwright import sync_api
else:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)")


@pytest.fixture(scope="module")
def address(small_pipeline: Path) -> Iterator[str]:
    """The address that `darkroom ui` prints, over the store of a finished pipeline."""
    with user_interface(small_pipeline) as address:
        yield address


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator["sync_api.BrowserContext"]:
    """A browser without a network: only the server can be reached."""
    with browser_on(address) as browser:
        yield browser


def _in_view(section: "sync_api.Locator") -> bool:
    """Whether the top of a section stands in what its frame shows."""
    inside = "one => { const top = one.getBoundingClientRect().top; return -5 <= top && top < innerHeight; }"
    return bool(section.evaluate(inside))


@pytest.fixture
def runs(browser: "sync_api.BrowserContext", address: str) -> Iterator["sync_api.Page"]:
    """The page that opens on the address."""
    page = browser.new_page()
    page.goto(address)
    yield page
    page.close()


@pytest.fixture
def train_unet(runs: "sync_api.Page") -> "sync_api.Page":
    """The page of the train_unet run, reached as a person would."""
    runs.get_by_role("link", name="train_unet", exact=True).click()
    runs.get_by_role("heading", name="train_unet").wait_for()
    return runs


def test_seven_runs_bear_the_names_of_their_stages(runs: "sync_api.Page", small_pipeline: Path) -> None:
    stages = yaml.safe_load((small_pipeline / "dvc.yaml").read_text())["stages"]
    assert len(stages) == 7
    for stage in stages:
        runs.get_by_role("link", name=stage, exact=True).wait_for()
    runs.get_by_text("7 matching runs").wait_for()


def test_the_table_opens_on_scores_and_shows_no_hash(
    runs: "sync_api.Page", small_pipeline: Path, tmp_path: Path
) -> None:
    """Catches a table that shows what MLflow shows by default: hashes of inputs and tags, and no figure."""
    metrics = json.loads((small_pipeline / "reports/evaluation/metrics.json").read_text())
    heading = runs.locator("[role=columnheader][col-id='metrics.`vae.psnr`']")
    value = runs.locator("[role=gridcell][col-id='metrics.`vae.psnr`']").filter(has_text=re.compile(r"\d"))
    for seen in (heading, value, runs.locator("[role=columnheader][col-id='duration']")):
        seen.wait_for()
    assert float(value.inner_text()) == pytest.approx(metrics["vae"]["psnr"]["value"], rel=1e-2)
    table = runs.locator(".ag-header-viewport").bounding_box()
    column = heading.bounding_box()
    assert table is not None
    assert column is not None
    assert table["x"] <= column["x"] < table["x"] + table["width"], "it is not scrolled out of sight"
    with Image.open(io.BytesIO(runs.screenshot(path=tmp_path / "runs.png", clip=column))) as shown:
        assert sum(shown.convert("L").histogram()[:160]) > 20, "no letters stand where the heading is"
    assert content_hash(small_pipeline / "data/prepared")[:8] not in runs.locator(".ag-root").inner_text()


def test_the_run_shows_its_inputs_and_leads_to_the_runs_that_made_them(
    train_unet: "sync_api.Page", small_pipeline: Path
) -> None:
    train_unet.get_by_text("Show more").click()
    for path, maker in (("data/latents", "cache_latents"), ("data/conditioning", "setup_text_encoder")):
        line = train_unet.get_by_role("listitem").filter(has_text=path)
        assert content_hash(small_pipeline / path) in line.inner_text()
        with train_unet.expect_popup() as opened:
            line.get_by_role("link", name=maker).click()
        opened.value.get_by_role("heading", name=maker).wait_for()
        opened.value.get_by_text("Finished", exact=True).wait_for()
        opened.value.close()


def test_the_run_shows_its_loss_curve(train_unet: "sync_api.Page") -> None:
    train_unet.get_by_role("tab", name="Model metrics").click()
    train_unet.get_by_placeholder("Search metric charts").fill("train/loss")
    chart = train_unet.get_by_test_id("experiment-view-compare-runs-card").filter(has_text="(train/loss)")
    line = chart.locator("path.js-line").first
    line.wait_for(state="attached")
    assert line.get_attribute("d").count("L") >= 5, "the curve has hardly a point"


def test_the_run_shows_its_sample_grids(train_unet: "sync_api.Page") -> None:
    train_unet.get_by_role("tab", name="Artifacts").click()
    train_unet.get_by_text("samples", exact=True).click()
    train_unet.get_by_text("step_0").last.click()
    picture = train_unet.locator("img[src^='blob:'], img[src*='artifact']").first
    picture.wait_for()
    assert picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") >= 64


def test_the_run_holds_its_weights_and_the_model_made_of_them(train_unet: "sync_api.Page") -> None:
    train_unet.get_by_role("link", name="darkroom-unet").first.wait_for()
    train_unet.get_by_role("tab", name="Artifacts").click()
    train_unet.get_by_text("artifacts", exact=True).click()
    train_unet.get_by_text("unet", exact=True).click()
    train_unet.get_by_text("diffusion_pytorch_model.safetensors").wait_for()
    train_unet.goto(f"{train_unet.url.split('#')[0]}#/models/darkroom-unet/versions/1")
    train_unet.get_by_role("link", name="train_unet").first.wait_for()


def test_the_run_shows_its_report_and_nothing_is_asked_of_others(train_unet: "sync_api.Page", address: str) -> None:
    """Catches a report that MLflow's frame, which allows no outside link, leaves blank."""
    asked: list[str] = []
    train_unet.on("request", lambda request: asked.append(request.url))
    train_unet.get_by_role("tab", name="Artifacts").click()
    train_unet.get_by_text("report", exact=True).click()
    train_unet.get_by_text("report.html", exact=True).click()
    frame = train_unet.frame_locator("iframe").first
    frame.get_by_role("heading", name="train_unet").wait_for()
    frame.get_by_role("heading", name="Held-out loss by noise level").wait_for()
    here = urlparse(address).netloc
    assert all(urlparse(url).netloc in ("", here) for url in asked)


def test_links_within_a_report_lead_to_their_sections_also_in_that_frame(train_unet: "sync_api.Page") -> None:
    """Catches links that do nothing: the frame is sandboxed, and what it shows has no address of its own."""
    train_unet.get_by_role("tab", name="Artifacts").click()
    train_unet.get_by_text("report", exact=True).click()
    train_unet.get_by_text("report.html", exact=True).click()
    frame = train_unet.frame_locator("iframe").first
    section = frame.locator("section#parameters")
    section.wait_for()
    assert not _in_view(section)
    frame.get_by_role("link", name="Parameters").click()
    train_unet.wait_for_timeout(500)
    assert _in_view(section)


def test_runs_are_compared_in_one_page_under_letters(
    browser: "sync_api.BrowserContext", small_pipeline: Path, tmp_path: Path
) -> None:
    """Catches heads of columns so long that they wrap, and letters that nothing explains."""
    out = tmp_path / "comparison.html"
    run_darkroom(small_pipeline, "report", "train_unet", "train_vae", "train_unet", "--out", str(out))
    page = browser.new_page()
    page.goto(out.as_uri())
    page.get_by_role("heading", name="Comparison of 3 runs").wait_for()
    legend = page.locator("#runs tbody tr")
    assert [row.split()[:2] for row in legend.all_inner_texts()] == [
        ["A", "train_unet"],
        ["B", "train_vae"],
        ["C", "train_unet"],
    ]
    assert page.locator("#figures thead th").all_inner_texts() == ["figure", "A", "B", "C"]
    lines = page.evaluate("[...document.querySelectorAll('tbody tr td:first-child')].map(cell => cell.offsetHeight)")
    assert max(lines) < 45, "one line each"
    page.close()
