"""An empty project whose runs go elsewhere, and what its stages say when they cannot."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from darkroom.core.errors import DarkroomError
from darkroom.tracking import stage_run


def enter_project(folder: Path, monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> Path:
    """Make `folder` the project and the current folder, with these variables and tracking on; returns it."""
    monkeypatch.chdir(folder)
    for name, value in {"DVC_ROOT": str(folder), "NO_PROXY": "127.0.0.1", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DARKROOM_TRACKING", raising=False)
    return folder


def refused() -> str:
    """The one line with which a stage does not begin."""
    with pytest.raises(DarkroomError) as caught, stage_run("train_vae", {}, {}, {}, [], {}):
        pytest.fail("it began")
    message = str(caught.value)
    assert "\n" not in message
    return message
