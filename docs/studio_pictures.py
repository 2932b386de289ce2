"""Takes the pictures of docs/studio.md and docs/report.md with the project in the current folder:

python docs/studio_pictures.py
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).parent
PORT = 5099
COMMAND = [sys.executable, "-c", "from darkroom.cli import main; main()", "studio", "--port", str(PORT)]
QUIET = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
PATIENCE = 300_000  # milliseconds
SETTLED = 3000  # until nothing moves any more
PROMPT = "a small red circle above a large blue square"


def draw(page: Page) -> None:
    """A prompt, its pictures, and what made one."""
    page.locator("#draw-prompt textarea").fill(PROMPT)
    page.locator("#draw-seeds").locator("input, textarea").fill("0-7")
    page.locator("#draw").click()
    page.get_by_text("8 drawn by").wait_for()
    page.wait_for_timeout(SETTLED)
    page.locator("#draw-again").click()
    page.get_by_text("the same file, to the byte").wait_for()
    page.wait_for_timeout(SETTLED)
    page.screenshot(path=DOCS / "studio-draw.png")


def compare(page: Page) -> None:
    """Guidance scales."""
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.locator("#axis").get_by_text("Guidance", exact=True).click()
    page.locator("#values textarea, #values input").first.wait_for()
    page.locator("#compare-prompt textarea").fill(f"{PROMPT}\na tiny yellow ring")
    page.locator("#compare").click()
    page.locator(".dr-grid tbody tr").nth(3).wait_for()
    page.wait_for_timeout(SETTLED)
    page.screenshot(path=DOCS / "studio-compare.png", full_page=True)


def film(page: Page) -> None:
    """A picture as it comes about, and taken apart."""
    page.get_by_role("tab", name="Film", exact=True).click()
    page.locator("#film").click()
    page.get_by_text("step 12 of 12").wait_for()
    page.locator("#step input[type=range]").fill("5")
    page.locator("#noise-take").click()
    page.get_by_text("t = 25% of the process").wait_for()
    page.wait_for_timeout(SETTLED)
    page.screenshot(path=DOCS / "studio-film.png", full_page=True)


def report(page: Page) -> None:
    """The top of the report of the model, which is there."""
    page.set_viewport_size({"width": 1100, "height": 760})
    page.goto((Path.cwd() / ".darkroom/reports/model.html").as_uri())
    page.wait_for_timeout(SETTLED)
    page.screenshot(path=DOCS / "report.png")


def main() -> None:
    """Start the studio, take the pictures, end it."""
    server = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = next(line.strip() for line in server.stdout if line.startswith("http"))
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET.split())
            page = chromium.new_page(viewport={"width": 1280, "height": 890})
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            page.locator("#draw").wait_for()
            page.wait_for_timeout(SETTLED)
            draw(page)
            compare(page)
            film(page)
            report(page)
            chromium.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


if __name__ == "__main__":
    main()
