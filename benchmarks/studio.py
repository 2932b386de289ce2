"""How long a person waits for the studio: from its start to the page, and from the click to the picture.

    python benchmarks/studio.py                                  the project in the current folder
    python benchmarks/studio.py ../other --drawings 10 --json out.json

Starts `darkroom studio` in a project, opens its page in headless Chromium (Playwright) and clicks Draw as the page
comes: the model's own prompt, steps and sampler, four seeds. Exits with status 1 where a bound is exceeded: the page
within PAGE_WITHIN seconds of the start, pictures within PICTURE_WITHIN of a click. Meant for cores that are idle.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

PAGE_WITHIN, PICTURE_WITHIN = 8.0, 2.0  # seconds
STARTS_WITHIN, DRAWS_WITHIN = 300.0, 300.0  # seconds, for machines with much else to do
COMMAND = (sys.executable, "-c", "from darkroom.cli import main; main()", "studio", "--port")
QUIET = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
SEEDS = 4  # of a drawing
# Called with the first seed of a drawing: whether its pictures are there, all of them decoded.
SHOWN = """seed => document.querySelector("#draw-download").innerText.includes(`seed ${seed}`)
    && [...document.querySelectorAll("#draw-gallery button img")].every(one => one.complete && one.naturalWidth > 0)"""


@contextmanager
def studio(project: Path) -> Iterator[tuple[str, float]]:
    """Its address, and the seconds from its start until the page answered."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    address, began = f"http://127.0.0.1:{port}", time.perf_counter()
    server = subprocess.Popen([*COMMAND, str(port)], cwd=project, stdout=subprocess.DEVNULL)
    try:
        while not _answers(address):
            if server.poll() is not None or time.perf_counter() - began > STARTS_WITHIN:
                sys.exit(f"darkroom studio in {project} did not answer")
            time.sleep(0.02)
        yield address, time.perf_counter() - began
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGINT)
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=STARTS_WITHIN) as page:
            return bool(page.status == 200)
    except OSError:
        return False


def drawn(page: Page, first: int) -> float:
    """Seconds from the click until the pictures of SEEDS seeds are shown."""
    page.locator("#draw-seeds").locator("input, textarea").fill(f"{first}-{first + SEEDS - 1}")
    began = time.perf_counter()
    page.locator("#draw").click()
    page.wait_for_function(SHOWN, arg=first)
    return time.perf_counter() - began


def measure(project: Path, drawings: int, pause: float) -> dict[str, Any]:
    """All figures. pause: seconds between a page that is there and the first click."""
    with studio(project) as (address, answered), sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET.split())
        page = chromium.new_page()
        page.set_default_timeout(1000 * DRAWS_WITHIN)
        began = time.perf_counter()
        page.goto(address)
        page.locator("#draw").wait_for()
        loaded = time.perf_counter() - began
        time.sleep(pause)
        seconds = [drawn(page, SEEDS * i) for i in range(drawings)]
        chromium.close()
    return {
        "project": str(project),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "pictures": SEEDS,
        "seconds": {
            "start to page": answered,
            "page in the browser": loaded,
            "first click to pictures": seconds[0],
            "later clicks, median": statistics.median(seconds[1:]) if drawings > 1 else None,
        },
    }


def exceeded(found: dict[str, Any]) -> list[str]:
    """The bounds that do not hold."""
    bounds = {"start to page": PAGE_WITHIN, "first click to pictures": PICTURE_WITHIN}
    return [
        f"{name}: {found['seconds'][name]:.1f} s, at most {most:g} are wanted"
        for name, most in bounds.items()
        if found["seconds"][name] > most
    ]


def main() -> None:
    """Measure, print, and exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", nargs="?", type=Path, default=Path(), help="folder of a project with a pipeline")
    parser.add_argument("--drawings", type=int, default=6, help="clicks on Draw")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds before the first of them, as a person reads")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    found = measure(options.project.resolve(), options.drawings, options.pause)
    for name, seconds in found["seconds"].items():
        print(f"{name:<28}{'' if seconds is None else f'{seconds:.2f} s'}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if wrong := exceeded(found):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
