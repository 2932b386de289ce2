"""A web server that says where it is once it is there, and ends in time, whatever is at work."""

import os
import shutil
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from darkroom.serving.queueing import ending

ANSWERS_UNTIL = 5  # seconds after a signal in which requests at work may still be refused in order
ENDS_WITHIN = 8.0  # seconds after a signal; a step of the drawing that takes longer is left unfinished
CONNECTIONS = 128  # open at the same time


class EndingServer(uvicorn.Server):
    """Sets `queueing.ending` at the first signal.

    said: what is printed once it listens. beside: a folder that goes when it ends.
    answers_until: seconds after a signal after which connections that are still open are cut.
    """

    def __init__(
        self, app: Any, host: str, port: int, said: str, beside: Path, answers_until: int = ANSWERS_UNTIL
    ) -> None:
        config = uvicorn.Config(
            app,
            host,
            port,
            loop="asyncio",
            http="h11",  # bounds the size of headers
            ws="none",
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=answers_until,
        )
        super().__init__(config)
        self._said, self._beside = said, beside

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self._said, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not ending.is_set():
            ending.set()
            late = threading.Timer(ENDS_WITHIN, leave, (self._beside, 1))
            late.daemon = True
            late.start()
        super().handle_exit(sig, frame)


def leave(beside: Path, status: int) -> None:
    """End this process. To take PyTorch and MLflow down in order takes seconds where others work too, for nothing:
    nothing is left to be saved."""
    if status:
        print("darkroom: ended within a step of the drawing", file=sys.stderr, flush=True)
    shutil.rmtree(beside, ignore_errors=True)
    os._exit(status)
