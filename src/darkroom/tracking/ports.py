"""At which ports user interfaces of this project run: noted in the project's folder while they do, and checked."""

import errno
import json
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from darkroom.core.artifact import atomic_path
from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import FOLDER, is_server, location, project_root
from darkroom.tracking.process import is_running, process_tags

UI_PORT = 5050
ANSWERS_WITHIN = 2.0  # seconds
FIRST, LAST = 1024, 65535  # ports that anybody may use


@contextmanager
def advertised(port: int) -> Iterator[None]:
    """While the block runs, links lead to this port; only what answers there by then counts."""
    note = _notes() / str(port)
    with atomic_path(note) as beside:
        beside.write_text(json.dumps(process_tags()), encoding="utf-8")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def running_port() -> int | None:
    """The port at which a user interface of this project answers now; None where there is none."""
    for note in sorted(_notes().glob("[0-9]*")):
        with suppress(OSError, ValueError, TypeError, AttributeError):  # notes that were damaged, or are gone by now
            if is_running(json.loads(note.read_text(encoding="utf-8")), shared=False) and answers(int(note.name)):
                return int(note.name)
    return None


def web_port() -> int:
    """The port that links name: where a user interface runs, else where the next one will by default."""
    return running_port() or UI_PORT


def link_hint() -> str:
    """What is to be said after a link that opens only later; "" where it opens now."""
    command = "make ui" if Path("Makefile").is_file() else "darkroom ui"
    return "" if is_server(location()) or running_port() else f" (while `{command}` runs)"


def answers(port: int) -> bool:
    """Whether an MLflow answers at this port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=ANSWERS_WITHIN):
            return True
    except (OSError, ValueError):
        return False


def check_free(port: int, command: str, host: str = "127.0.0.1") -> None:
    """Refuse a port that is taken; `command` is what would listen there."""
    if not is_free(port, host):
        free = free_after(port)
        raise DarkroomError(
            f"port {port} is taken{f'; {free} is free: {command} --port {free}' if free else ', and so is every other'}"
        )


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen at this port now."""
    try:
        kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise DarkroomError(f"host = {host!r}: {error.strerror}; give an address of this machine") from None
    with socket.socket(kind) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise DarkroomError(f"host = {host!r}: {error.strerror}; give an address of this machine") from None
            return False
    return True


def free_after(port: int) -> int | None:
    """The next port that is free, each tried; None where there is none."""
    return next(filter(is_free, chain(range(port + 1, LAST + 1), range(FIRST, port))), None)


def _notes() -> Path:
    return project_root() / FOLDER / "ui"
