"""A report in an empty folder that tracks nothing."""

from pathlib import Path

import pytest

from darkroom.reporting.write import keep
from tests.support.reports import finished


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty; nothing is tracked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def page(folder: Path) -> str:
    """The report of that run."""
    return keep(*finished(), folder).read_text()
