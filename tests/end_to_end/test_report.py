"""A report as a person opens it: a file in a browser that notes what it asks for, light, dark, narrow and on paper."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from darkroom.reporting.write import keep
from tests.support.browser import CHROMIUM, QUIET
from tests.support.reports import SCRIPT, finished

if TYPE_CHECKING:
    from playwright import sync_api
else:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)")


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    return keep(*finished(), tmp_path)


@pytest.fixture
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield chromium
        chromium.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_report_opens_as_a_file_and_asks_for_nothing(
    browser: "sync_api.Browser", report: Path, width: int, scheme: str
) -> None:
    """Catches a page that is wider than a telephone, one that is light in the dark, and a picture that is broken."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.get_by_text(f"Worst attribute: {SCRIPT}").wait_for()
    assert page.get_by_text("The likeliest copy lies").is_visible()
    assert page.get_by_text("It took 87 s.").is_visible()
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.evaluate("document.images.length") >= 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, paper[4:-1].split(","))) < 100) == (scheme == "dark")
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.pdf().startswith(b"%PDF")
