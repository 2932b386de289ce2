"""A studio over two tiny pipelines, in an empty folder."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom.serving.limits import Limits
from darkroom.studio.models import Models
from darkroom.studio.work import Studio
from tests.support import pipelines


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of two pipelines of the same networks, one of which is guided more."""
    more = pipelines.SAMPLING.changed(guidance_scale=5.0)
    return [
        pipelines.assembled(tmp_path_factory.mktemp("one")),
        pipelines.assembled(tmp_path_factory.mktemp("other"), sampling=more),
    ]


@pytest.fixture
def make_studio(two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Studio]:
    """A studio with limits; the current folder is empty, and nothing is tracked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_TRACKING", "off")
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    monkeypatch.setenv("DARKROOM_THREADS", "1")  # records say how many, and commands here are to say the same

    def make(**limits: float) -> Studio:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        return Studio(Models(two, folder), Limits(**{"seconds": 600, **limits}), folder)  # type: ignore[arg-type]

    return make


@pytest.fixture
def studio(make_studio: Callable[..., Studio]) -> Studio:
    return make_studio()
