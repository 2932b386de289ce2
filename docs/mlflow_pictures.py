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

from PIL import Image
from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).parent
PORT = 5098
COMMAND = [sys.executable, "-c", "from darkroom.cli import main; main()", "ui", "--port", str(PORT)]
QUIET = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
PATIENCE = 300_000  # milliseconds
SETTLED = 3000  # until nothing moves any more
ASSISTANT = "[data-component-id='mlflow.assistant.chat_panel.close']"  # a panel that takes a third of the page
PICTURE = "img[src*='lineage.svg']"  # MLflow leaves out what it is called
TRAINING = "workflowType=machine_learning"


def version(page: Page, root: str) -> None:
    """The registered version, with the way back from it."""
    page.goto(f"{root}#/models/darkroom/versions/1?{TRAINING}")
    page.locator(PICTURE).wait_for()
    page.locator(ASSISTANT).click()
    take(page, "version")


def run(page: Page) -> None:
    """The run of train_unet, one click from the version."""
    with page.expect_popup() as opened:
        page.get_by_role("link", name="train_unet", exact=True).first.click()
    opened.value.get_by_text("Show more").click()
    opened.value.locator(PICTURE).scroll_into_view_if_needed()
    take(opened.value, "run")
    opened.value.close()


def checkpoint(page: Page, root: str, experiment: str) -> None:
    """The weights of the U-Net in the Models tab."""
    page.goto(f"{root}#/experiments/{experiment}/models?{TRAINING}")
    page.get_by_role("link", name="darkroom-unet").first.click()
    page.locator(PICTURE).wait_for()
    page.get_by_text("Metrics (").first.scroll_into_view_if_needed()
    take(page, "checkpoint")


def take(page: Page, name: str) -> None:
    """A picture of what the page shows, of few colours."""
    page.wait_for_timeout(SETTLED)
    file = DOCS / f"mlflow-{name}.png"
    page.screenshot(path=file)
    with Image.open(file) as picture:
        few = picture.convert("RGB").quantize(128)
    few.save(file, optimize=True)


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
            page = chromium.new_context(viewport={"width": 1280, "height": 960}).new_page()
            page.context.set_default_timeout(PATIENCE)
            root = f"http://{urlparse(address).netloc}/"
            version(page, root)
            run(page)
            checkpoint(page, root, found[1])
            chromium.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


if __name__ == "__main__":
    main()
