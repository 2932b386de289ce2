"""A registered model served by a process of its own: at a free port, awaited until it answers, and ended."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

OURS = ("-c", "from darkroom.cli import main; main()", "serve")  # darkroom serve
STARTS_WITHIN, ENDS_WITHIN = 300, 20  # seconds, for machines with much else to do


@dataclass(frozen=True)
class ModelServer:
    """A process that serves, and where; log: what it says."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path


@contextmanager
def started(command: Sequence[str], where: Path, environment: Mapping[str, str], log: Path) -> Iterator[ModelServer]:
    """Python with `command` and a --port, in a session of its own, in the folder `where`; ended after the block.

    Raises:
        RuntimeError: it ended, or did not answer in time; what it said.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command, "--port", str(port)],
            cwd=where,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + STARTS_WITHIN
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text(encoding="utf-8", errors="replace"))
            time.sleep(0.2)
        yield ModelServer(process, port, log)
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(ENDS_WITHIN)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
            return True
    except OSError:
        return False
