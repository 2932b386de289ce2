"""The command around the page: what it says before it opens, and what stands before it."""

import asyncio
import importlib.util
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from darkroom.studio.server import POLICY, Confined

Run = Callable[..., int]
Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder that tracks nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_TRACKING", "off")


def test_without_gradio_it_is_one_line_with_the_remedy(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run("studio") == 1
    said = capsys.readouterr().err
    assert "pip install 'darkroom[studio]'" in said
    assert len(said.splitlines()) == 1


def test_help_teaches_without_gradio(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run("studio", "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    for what in ("paint", "compare", "darkroom studio before artifacts/pipeline", "DARKROOM_SERVE_ROWS", "[studio]"):
        assert what in said


def test_a_limit_that_is_not_a_number_is_said_before_anything_is_loaded(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    monkeypatch.setenv("DARKROOM_SERVE_ROWS", "many")
    assert run("studio") == 1
    assert "DARKROOM_SERVE_ROWS = 'many': give a whole number" in capsys.readouterr().err


def test_every_answer_keeps_the_browser_here() -> None:
    """Catches a page that could load a font or a script from elsewhere, whatever Gradio's next version tries."""
    answers: list[MutableMapping[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": b""})

    async def note(message: MutableMapping[str, Any]) -> None:
        answers.append(message)

    async def nothing() -> MutableMapping[str, Any]:
        return {}

    asyncio.run(Confined(app)({"type": "http"}, nothing, note))
    headers = dict(answers[0]["headers"])
    assert headers[b"x"] == b"y"
    assert headers[b"content-security-policy"].decode() == POLICY
    assert "http" not in POLICY
    assert "*" not in POLICY
