"""Where the runs are kept: the address of the store, from the environment or the project's folder."""

import os
import re
from pathlib import Path

from darkroom.core.errors import DarkroomError

FOLDER = Path(".mlflow")
PASSWORD = re.compile(r"(?<=://)[^/@]*@")


def project_root() -> Path:
    """The project's folder: DVC's, also where a stage works in a throw-away copy of it (dvc exp run --queue)."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def named() -> str:
    """The address that MLFLOW_TRACKING_URI gives; "" where it gives none, set or not: the project's own is meant."""
    return os.environ.get("MLFLOW_TRACKING_URI", "")


def location() -> str:
    """The address of the store: the one that is named, or the project's own database."""
    return named() or f"sqlite:///{project_root() / FOLDER / 'mlflow.db'}"


def shown(address: str) -> str:
    """An address without the password that may stand in it."""
    return PASSWORD.sub("", address)


def meant() -> str:
    """The store that MLFLOW_TRACKING_URI names, as `shown`; "" where that is the project's own, wherever it moves."""
    return shown(named())


def is_on() -> bool:
    """Whether anything is to be recorded: not where DARKROOM_TRACKING says off."""
    value = os.environ.get("DARKROOM_TRACKING", "on")
    if value not in ("on", "off"):
        raise DarkroomError(f"DARKROOM_TRACKING = {value!r}: give on or off")
    return value == "on"


def is_server(address: str) -> bool:
    """Whether the store is a server elsewhere, not a database or folder opened here."""
    return address.startswith(("http://", "https://"))
