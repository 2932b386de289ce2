"""A real MLflow server to send runs to."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


class Server:
    """A real MLflow server on loopback that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        if self._process is None:
            script = Path(__file__).with_name("mlflow_process.py")
            environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, str(script), str(self.folder), str(self.port)],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        self._say("start")
        deadline = time.monotonic() + 300
        question = f"{self.address}/api/2.0/mlflow/experiments/get?experiment_id=0"  # has it open its database
        while True:
            try:
                with urllib.request.urlopen(question, timeout=120):
                    return
            except OSError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "the MLflow server did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._say("stop")
        assert self._process.stdout.readline() == "stopped\n"

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()

    def _say(self, order: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
