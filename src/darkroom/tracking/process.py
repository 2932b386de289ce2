"""Which process works at a run, so that a later process can tell whether it still lives."""

import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

HOST, PID, STARTED = "process.host", "process.pid", "process.started"
PROC = Path("/proc")


def process_tags() -> dict[str, str]:
    """This process, as tags of its run: pids are given again, so it is known by its start as well."""
    return {HOST: socket.gethostname(), PID: str(os.getpid()), STARTED: _started(os.getpid())}


def is_running(tags: Mapping[str, str], shared: bool) -> bool | None:
    """Whether the process with these tags still lives; None where that cannot be known from here.

    shared: whether machines of the same name may have written the tags, as in a store that several use.
    """
    if tags.get(HOST) != socket.gethostname() or not tags.get(STARTED):
        return None
    pid, *known = tags.get(PID, ""), *tags[STARTED].split()
    if not pid.isdigit():
        return None
    if _is_linux():
        if len(known) != 3:
            return None
        boot, namespace, _ = known
        if boot != _boot():
            return None if shared else False
        if namespace != _namespace():
            return None  # a container and its host see different processes under the same number
    return _started(int(pid)) == tags[STARTED]


def _is_linux() -> bool:
    return (PROC / "self/stat").exists()


def _started(pid: int) -> str:
    """When a process began, in words that no other process of that number has; empty where there is none."""
    if not _is_linux():
        asked = ["ps", "-o", "lstart=", "-p", str(pid)]
        try:
            return subprocess.run(
                asked, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
            ).stdout.strip()
        except OSError:
            return ""
    try:
        state, *fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else f"{_boot()} {_namespace()} {fields[18]}"


def _boot() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> str:
    return os.readlink(PROC / "self/ns/pid")  # noqa: PTH115
