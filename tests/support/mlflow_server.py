"""Real MLflow servers on loopback to send runs to."""

import atexit
import os
import subprocess
import sys
import time
import urllib.request
from functools import cache
from pathlib import Path

from tests.support.ports import free_port

STARTS_WITHIN = 300  # seconds


@cache
def preloaded() -> "subprocess.Popen[str]":
    """The one process that has imported MLflow's server, and begins all that the tests of this process start."""
    script = Path(__file__).with_name("mlflow_process.py")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.communicate)
    return process


def order(*fields: str) -> None:
    process = preloaded()
    assert process.stdin is not None
    process.stdin.write("\t".join(fields) + "\n")
    process.stdin.flush()


class Server:
    """A server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._runs = False

    def start(self) -> None:
        """Start, and wait until it answers."""
        order("start", str(self.folder), str(self.port))
        self._runs = True
        deadline = time.monotonic() + STARTS_WITHIN
        question = f"{self.address}/api/2.0/mlflow/experiments/get?experiment_id=0"  # has it open its database
        while True:
            try:
                with urllib.request.urlopen(question, timeout=120):
                    return
            except OSError:
                log = self.folder / "log"
                assert time.monotonic() < deadline, log.read_text() if log.exists() else "the server did not start"
                assert preloaded().poll() is None
                time.sleep(0.05)

    def stop(self) -> None:
        """End it at once, as a machine that fails."""
        order("stop", str(self.port))
        answer = preloaded().stdout
        assert answer is not None
        assert answer.readline() == "stopped\n"
        self._runs = False

    def close(self) -> None:
        """Stop it if it runs."""
        if self._runs:
            self.stop()
