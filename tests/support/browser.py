"""MLflow's pages over the store of a project, and a browser that can reach nothing else."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from tests.support.ports import free_port

if TYPE_CHECKING:
    from playwright import sync_api

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
PATIENCE = 120_000  # milliseconds, for machines with much else to do


@contextmanager
def user_interface(project: Path) -> Iterator[str]:
    """The address that `darkroom ui` prints."""
    port = free_port()
    command = [sys.executable, "-c", "from darkroom.cli import main; main()", "ui", "--port", str(port)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DARKROOM_", "MLFLOW_", "DVC_"))}
    server = subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        lines = iter(server.stdout)
        yield next(line.strip() for line in lines if line.startswith("http://"))
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=120) == 0
    with socket.socket() as s:
        assert s.connect_ex(("127.0.0.1", port)) != 0, "the server outlived `darkroom ui`"


@contextmanager
def browser_on(address: str) -> Iterator["sync_api.BrowserContext"]:
    """A browser without a network: only the server at this address can be reached."""
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        context = chromium.new_context(viewport={"width": 1600, "height": 1200})
        context.set_default_timeout(PATIENCE)
        here = urlparse(address).netloc
        context.route(
            lambda url: urlparse(url).netloc not in ("", here), lambda route: route.abort("internetdisconnected")
        )
        yield context
        chromium.close()
