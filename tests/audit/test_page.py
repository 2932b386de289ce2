"""The page of an audit says what the audit says, draws the lineage, and asks nobody for anything."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import darkroom.reporting

SCROLLS = Path(darkroom.reporting.__file__).parent / "templates" / "scroll.js"
Audited = Callable[..., dict[str, Any]]

Run = Callable[..., int]


def test_the_page_says_what_the_audit_says(tracked: Path, run: Run, audit: Audited) -> None:
    """Catches a page of a broken chain that looks whole, and a finding or a stage that is left out."""
    assert run("audit", "--html", "audit.html") == 0
    text = Path("audit.html").read_text(encoding="utf-8")
    assert "Audit of all stages" in text
    assert '<svg class="lineage"' in text
    assert "What does not hold" not in text
    assert "did not finish" not in text
    Path("artifacts/vae/weights.txt").write_text("other")
    Path("artifacts/vae/<b>new.txt").write_text("a name that is markup")
    found = audit("--html", "audit.html")
    text = Path("audit.html").read_text(encoding="utf-8")
    assert "What does not hold" in text
    assert "✗ train_vae" in text
    assert "<b>new" not in text
    for finding in found["findings"]:
        assert f"<td>{finding['kind']}</td>" in text
    for step in found["steps"]:
        assert step["run"]["id"][:8] in text
        assert all(digest[:8] in text for digest in step["outputs"].values())


def test_the_page_loads_nothing(project: Path, run: Run) -> None:
    run("audit", "--html", "audit.html")
    text = Path("audit.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", text)
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert [script.strip() for script in scripts] == [SCROLLS.read_text(encoding="utf-8").strip()]


def test_a_place_for_the_page_that_is_none_is_refused_first(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("audit", "--html", "nowhere/audit.html") == 1
    assert "there is no folder nowhere" in capsys.readouterr().err
    assert run("audit", "--html", "audit.txt") == 1
    assert ".html" in capsys.readouterr().err
