"""From a registered version, in MLflow's own pages, to its scores, the run of every part, the data and the commit.

DARKROOM_TEST_PROJECT=FOLDER names another finished project than the small one that these tests make, such as one in
which `make repro` has made the default model.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from darkroom.core.artifact import content_hash
from tests.support.browser import CHROMIUM, browser_on, user_interface
from tests.support.projects import run_darkroom

if TYPE_CHECKING:
    from playwright import sync_api
else:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)")

PARTS = {  # what the model is made of, and the stage that made it
    "data/prepared": "prepare_data",
    "artifacts/vae": "train_vae",
    "data/latents": "cache_latents",
    "artifacts/text_encoder": "setup_text_encoder",
    "data/conditioning": "setup_text_encoder",
    "artifacts/unet": "train_unet",
    "artifacts/evaluator": "train_evaluator",
    "artifacts/pipeline": "evaluate",
}
DRAWN = "img[src*='lineage.svg']"  # MLflow leaves out what a picture is called
PROJECT = "DARKROOM_TEST_PROJECT"
WIDTH = "picture => picture.decode().then(() => picture.naturalWidth)"


@pytest.fixture(scope="module")
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished project whose model is registered, too."""
    finished = os.environ.get(PROJECT) or request.getfixturevalue("small_pipeline")
    project = tmp_path_factory.mktemp("registered") / "darkroom"
    shutil.copytree(finished, project, symlinks=True, ignore=shutil.ignore_patterns("cache", "tmp", ".venv"))
    assert "version 1 of the model darkroom" in run_darkroom(project, "register", "--promote")
    return project


@pytest.fixture(scope="module")
def repository(project: Path) -> str:
    """The address of the repository that the project was cloned from."""
    return git(project, "remote", "get-url", "origin").removesuffix(".git")


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    with user_interface(project) as address:
        yield address


@pytest.fixture(scope="module")
def browser(address: str, repository: str) -> Iterator["sync_api.BrowserContext"]:
    """A browser that can reach the server, and the host of the repository."""
    with browser_on(address) as browser:
        browser.route(f"{repository}/**", lambda route: route.fulfill(body="the commit", content_type="text/plain"))
        yield browser


@pytest.fixture
def version(browser: "sync_api.BrowserContext", address: str) -> Iterator["sync_api.Page"]:
    """The page of the registered version."""
    page = browser.new_page()
    page.goto(f"{address.split('#')[0]}#/models/darkroom/versions/1?workflowType=machine_learning")
    page.get_by_role("link", name="scores").wait_for()
    yield page
    for opened in browser.pages:
        opened.close()


def git(project: Path, *arguments: str) -> str:
    """What git says in the project."""
    return subprocess.run(["git", *arguments], cwd=project, check=True, capture_output=True, text=True).stdout.strip()


def follow(page: "sync_api.Page", link: str) -> "sync_api.Page":
    """One click on a link of a description, which MLflow opens in a tab of its own."""
    with page.expect_popup() as opened:
        page.get_by_role("link", name=link, exact=True).first.click()
    return opened.value


def holds_file(page: "sync_api.Page", text: str) -> None:
    """Wait until the page shows a file with this text."""
    page.get_by_text(text).first.wait_for()


def test_from_a_version_to_its_scores(version: "sync_api.Page", project: Path) -> None:
    """One click, to the table of the run that measured it."""
    scores = follow(version, "scores")
    scores.get_by_role("heading", name="evaluate").wait_for()
    scores.get_by_text("to be read against").first.wait_for()
    metrics = json.loads((project / "reports/evaluation/metrics.json").read_text())
    row = scores.get_by_role("row").filter(has_text="psnr").first
    assert f"{metrics['vae']['psnr']['value']:.3g}"[:3] in row.inner_text()


@pytest.mark.parametrize("path", PARTS)
def test_from_a_version_to_the_run_of_every_part_and_on_to_its_parameters(
    path: str, version: "sync_api.Page", project: Path
) -> None:
    """One click to the run, which names the content that the version names, and one to params.yaml as that run had it.

    Catches a part that is left out, and one that leads to another run of its stage.
    """
    row = version.get_by_role("row").filter(has_text=path)
    digest = content_hash(project / path)
    assert digest[:8] in row.inner_text()
    with version.expect_popup() as opened:
        row.get_by_role("link", name=PARTS[path]).click()
    run = opened.value
    run.get_by_role("heading", name=PARTS[path]).wait_for()
    run.get_by_text("Finished", exact=True).wait_for()
    run.get_by_text("Show more").click()
    assert digest in run.get_by_role("listitem").filter(has_text=path).last.inner_text()
    holds_file(follow(run, "params.yaml"), "prepare_data:")


@pytest.mark.parametrize("stage", ["", "train_unet"])
def test_from_a_version_to_the_data_the_parameters_and_the_commit(
    stage: str, version: "sync_api.Page", project: Path, repository: str
) -> None:
    """One click each from the version itself; two by way of the run of a part."""
    page = follow(version, stage) if stage else version
    if stage:
        page.get_by_text("Show more").click()
    holds_file(follow(page, "params.yaml"), "prepare_data:")
    holds_file(follow(page, "data set"), '"source": "scenes"')
    commit = git(project, "rev-parse", "HEAD")
    assert follow(page, commit[:8]).url == f"{repository}/commit/{commit}"


def test_a_version_and_a_run_show_their_lineage_drawn(version: "sync_api.Page") -> None:
    """Catches a picture that the server serves as something else, or that MLflow's pages do not let through.

    One box wide at least: what is behind a stage is known from dvc.lock, which the small project got at its end.
    """
    assert version.locator(DRAWN).evaluate(WIDTH) > 250
    run = follow(version, "train_unet")
    run.get_by_text("Show more").click()
    assert run.locator(DRAWN).evaluate(WIDTH) > 250


def test_the_models_tab_says_which_data_which_score_which_checkpoint(
    version: "sync_api.Page", address: str, project: Path
) -> None:
    """Catches scores of a run alone, which say neither of which weights they are nor on what they were measured."""
    experiment = re.search(r"/experiments/(\d+)/", address)
    assert experiment
    version.goto(f"{address.split('#')[0]}#/experiments/{experiment[1]}/models?workflowType=machine_learning")
    metrics = json.loads((project / "reports/train_unet/metrics.json").read_text())
    version.get_by_role("link", name="darkroom-unet").first.click()
    version.get_by_role("heading", name="darkroom-unet").first.wait_for()
    row = version.get_by_role("row").filter(has_text="held_out_loss").first
    assert "data/latents" in row.inner_text()
    assert f"{metrics['held_out_loss']:.4f}"[:5] in row.inner_text()
