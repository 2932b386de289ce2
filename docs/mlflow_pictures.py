"""Takes the pictures of docs/audit.md from the store of this project: python docs/mlflow_pictures.py

The pipeline must have run, and its model be registered (make repro).
"""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

from playwright.sync_api import BrowserContext, Page, sync_playwright

DOCS = Path(__file__).parent
PORT = 5098
COMMAND = [sys.executable, "-c", "from darkroom.cli import main; main()", "ui", "--port", str(PORT)]
QUIET = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
PATIENCE = 300_000  # milliseconds
SETTLED = 3000  # until nothing moves any more
TRAINING = "workflowType=machine_learning"


def version(page: Page, root: str) -> None:
    """The latest registered version, with the way back from it."""
    page.goto(f"{root}#/models/darkroom?{TRAINING}")
    page.get_by_role("link", name=re.compile(r"^Version \d+$")).first.click()
    page.get_by_role("img", name="lineage").wait_for()
    page.wait_for_timeout(SETTLED)
    page.screenshot(path=DOCS / "mlflow-version.png")


def run(page: Page) -> None:
    """The run of train_unet, one click from the version."""
    with page.expect_popup() as opened:
        page.get_by_role("link", name="train_unet", exact=True).first.click()
    opened.value.get_by_text("Show more").click()
    opened.value.get_by_role("img", name="lineage").wait_for()
    opened.value.wait_for_timeout(SETTLED)
    opened.value.screenshot(path=DOCS / "mlflow-run.png")


def models(page: Page, root: str, experiment: str) -> None:
    """The Models tab."""
    page.goto(f"{root}#/experiments/{experiment}/models?{TRAINING}")
    page.get_by_role("link", name="darkroom-unet").first.wait_for()
    page.wait_for_timeout(SETTLED)
    page.screenshot(path=DOCS / "mlflow-models.png")


def opened(context: BrowserContext, root: str, experiment: str) -> None:
    page = context.new_page()
    version(page, root)
    run(page)
    models(page, root, experiment)


def main() -> None:
    """Start the user interface, take the pictures, end it."""
    server = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = next(line.strip() for line in server.stdout if line.startswith("http"))
        found = re.search(r"/experiments/(\d+)/", address)
        assert found
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET.split())
            context = chromium.new_context(viewport={"width": 1280, "height": 900})
            context.set_default_timeout(PATIENCE)
            opened(context, f"http://{urlparse(address).netloc}/", found[1])
            chromium.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


if __name__ == "__main__":
    main()
