"""What the tests of hostile data share."""

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data set "set" below the data root of this machine."""
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path / "root"))
    path = tmp_path / "root" / "set"
    path.mkdir(parents=True)
    return path
