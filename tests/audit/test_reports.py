"""Reports that were changed after they were written: the audit makes them again and compares.

Fault caught: a report whose figures, pictures or lineage are not those of the run, or one of an earlier run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darkroom.reporting.write import report_project

Audited = Callable[..., dict[str, Any]]
PAGES = Path(".darkroom/reports")


@pytest.fixture
def reported(project: Path) -> Path:
    """The project with its reports."""
    report_project()
    return project


def kinds(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["kind"], one["where"]) for one in found["findings"] if "report" in one["kind"]]


def test_a_report_as_it_was_written_is_sound(reported: Path, audit: Audited) -> None:
    assert {file.name for file in PAGES.glob("*.html")} == {
        "prepare_data.html",
        "train_vae.html",
        "evaluate.html",
        "model.html",
    }
    assert kinds(audit()) == []


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("train_vae.html", ">30<", ">33<"),
        ("train_vae.html", "artifacts/vae", "artifacts/VAE"),
        ("model.html", ">30<", ">33<"),
    ],
)
def test_a_changed_report_is_found_and_its_remedy_writes_it_anew(
    reported: Path, audit: Audited, run: Callable[..., int], file: str, old: str, new: str
) -> None:
    page = PAGES / file
    before = page.read_text()
    assert old in before
    page.write_text(before.replace(old, new))
    found = audit()
    assert kinds(found) == [("changed report", str(page))]
    assert not found["whole"]
    (finding,) = (one for one in found["findings"] if one["kind"] == "changed report")
    assert run(*finding["remedy"].split()[1:]) == 0
    assert kinds(audit()) == []
    assert page.read_text() == before


def test_a_report_whose_facts_cannot_be_read_is_found(reported: Path, audit: Audited, run: Callable[..., int]) -> None:
    (PAGES / "train_vae/report/facts.json").write_text("{}")
    assert kinds(audit()) == [("changed report", str(PAGES / "train_vae.html"))]
    assert run("report") == 0
    assert kinds(audit()) == []


def test_a_report_of_other_outputs_is_called_older(reported: Path, audit: Audited) -> None:
    facts = PAGES / "train_vae/report/facts.json"
    facts.write_text(facts.read_text().replace('"outputs": {', '"outputs": {"x": "y",'))
    found = audit()
    assert ("older report", str(PAGES / "train_vae.html")) in kinds(found)
    assert found["whole"]


def test_a_report_without_its_times_is_all_that_is_compared(reported: Path, audit: Audited) -> None:
    page = PAGES / "train_vae.html"
    text = page.read_text()
    assert "<!--timed-->" in text
    page.write_text(text.replace("<!--timed-->", "<!--timed--><p>another machine</p>", 1))
    assert kinds(audit()) == []
