"""What every report holds to: it asks for nothing, shows text of others as text, is the same for the same run."""

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from darkroom.core.artifact import write_json
from darkroom.reporting.blocks import Cell, Table
from darkroom.reporting.copies import CLOSENESS
from darkroom.reporting.facts import Execution, Files, read_facts
from darkroom.reporting.model_sections import statements
from darkroom.reporting.pages import render, stage_page, timeless
from darkroom.reporting.stage_sections import figures
from darkroom.reporting.write import files_of, keep, report_model
from darkroom.tracking.note import PICTURES, Observed
from tests.support.reports import EXECUTION, NEAREST, SCRIPT, finished, metrics, png

ADDRESSES = {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}


class Seen(HTMLParser):
    """Tags, addresses, texts of scripts, and other text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text, self.scripts = "", list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ADDRESSES]

    def handle_data(self, data: str) -> None:
        if self.tags and self.lasttag == "script" and self.cdata_elem == "script":
            self.scripts.append(data)
        else:
            self.text += data


def test_a_report_asks_for_nothing_outside_itself(page: str) -> None:
    """Catches a font, a script or a picture that is loaded from elsewhere, and a link that leads away."""
    seen = Seen(page)
    assert len(seen.addresses) > 5
    assert all(one.startswith(("data:", "#")) for one in seen.addresses)
    assert not {"iframe", "object", "embed", "form"} & {*seen.tags}
    assert not re.search(r"@import|url\(", page)


def test_a_report_has_one_script_and_lets_no_other_run(page: str) -> None:
    """Catches a page that sends what it shows, should text of others ever become part of it: the browser refuses."""
    seen = Seen(page)
    assert seen.tags.count("script") == 1
    (script,) = seen.scripts
    assert not re.search(r"fetch|XMLHttpRequest|import|https?:", script)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])  # type: ignore[index]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"


def test_what_others_wrote_is_shown_as_text(page: str) -> None:
    """Catches an attribute, class or caption that the browser obeys."""
    assert SCRIPT not in page
    assert "<b>disc" not in page
    assert SCRIPT in Seen(page).text


def test_a_reader_finds_what_matters(page: str) -> None:
    text = " ".join(Seen(page).text.split())
    assert f"Worst attribute: {SCRIPT}. Of 100 test captions asking for it, 70.0 % are drawn right" in text
    assert "ring is read as <b>disc</b>, 25.0 % of the time" in text
    assert "The likeliest copy lies 0.50 from the training picture nearest to it, train/<i>7.png; from" in text
    assert "train/<i>8.png, train/9.png" in text, "the names of the next ones"
    assert "It took 87 s." in text
    assert "MFU" in text
    assert "1,234 MiB" in text
    assert "0 to 25 %" in text, "the held-out loss by noise level"
    assert "data/prepared" in text, "what it was made from"
    assert "after 1 step" in text, "samples over the training"


def test_two_runs_that_differ_in_time_alone_have_one_report_but_for_times(folder: Path) -> None:
    first = keep(*finished(), folder).read_text()
    later = Execution(began=1, seconds=3.0, memory_mib=5.0, profile={"device": "cuda"}, commit="decaf")
    second = keep(*finished(execution=later), folder).read_text()
    assert first != second
    assert timeless(first) == timeless(second)
    assert "87 s" not in timeless(first)
    assert "c0ffee" not in timeless(first)


def test_a_report_is_the_same_when_it_is_made_again_from_what_was_kept(folder: Path) -> None:
    """Catches something that is in memory at a stage's end and not kept."""
    facts, files = finished()
    differing = {"evaluate.z": [1, 2], "evaluate.a": [3, 4]}  # in an order of their own
    before = keep(replace(facts, recipe="scenes", changed=differing), files, folder).read_text()
    kept = read_facts("evaluate", folder)
    assert kept is not None
    assert render(stage_page(kept, files_of("evaluate", folder))) == before
    model = report_model(folder).read_text()
    assert report_model(folder).read_text() == model


def test_stages_that_ran_without_dvc_are_in_the_report_of_the_model(folder: Path) -> None:
    """Catches a report of the model that shows its last stage alone, for no dvc.lock names the others yet."""
    facts, files = finished()
    keep(replace(facts, stage="prepare_data", inputs={}, outputs={"data/prepared": "a" * 32}, lineage={}), {}, folder)
    keep(finished()[0], files, folder)
    text = " ".join(Seen(report_model(folder).read_text()).text.split())
    assert "and the 2 stages behind it." in text
    assert "prepare_data" in text


def test_the_report_of_the_model_names_the_stages_of_which_nothing_is_kept(folder: Path) -> None:
    facts, files = finished()
    other = {"prepare_data": {"inputs": {}, "outputs": {"data/prepared": "a" * 32}}}
    keep(replace(facts, lineage={**other, **facts.lineage}), files, folder)
    text = " ".join(Seen(report_model(folder).read_text()).text.split())
    assert "and the stage behind it. No report is kept of prepare_data; darkroom report writes it." in text


def test_a_model_of_which_nothing_is_asked_has_a_report_without_attributes(folder: Path) -> None:
    text = Seen(keep(*finished(asked=False), folder).read_text()).text
    assert "Worst attribute" not in text
    assert "Distance to real pictures" in text


def test_a_run_that_failed_says_so_and_shows_how_far_it_came(folder: Path) -> None:
    facts, files = finished()
    curves = {"train/loss": [(1, 2.0), (2, float("nan")), (3, 1.0)]}
    failed = replace(
        facts, status="FAILED", reason=f"no room: {SCRIPT}", outputs={}, curves=curves, execution=EXECUTION
    )
    text = keep(failed, files, folder).read_text()
    assert "This did not finish." in text
    assert SCRIPT not in text
    assert "<polyline" in text


def test_a_report_with_nothing_in_it_is_still_a_page(folder: Path) -> None:
    """Of a stage that was interrupted before it had told anything."""
    facts, _ = finished()
    empty = replace(facts, status="KILLED", reason="", outputs={}, params={}, lineage={}, execution=Execution())
    assert "killed" in keep(empty, {}, folder).read_text()


def test_a_long_training_keeps_few_pictures_the_first_and_the_last_among_them() -> None:
    observed = Observed()
    for step in range(100):
        observed.keep(f"samples/step_{step:06d}.png", png())
    assert len(observed.files) <= PICTURES
    assert {"samples/step_000000.png", "samples/step_000099.png"} <= observed.files.keys()
    assert list(observed.files) == sorted(observed.files)


@pytest.mark.parametrize(
    ("low", "c_t", "verdict"),
    [
        (0.42, (1.0, 2.0), "no sign of them"),
        (0.6, (1.0, 2.0), "there are signs"),
        (0.42, (-4.0, -2.0), "there are signs"),
    ],
)
def test_a_reader_is_told_whether_training_pictures_are_copied(
    folder: Path, low: float, c_t: tuple[float, float], verdict: str
) -> None:
    """Catches figures that speak of copies under a sentence that does not, and a sentence that alarms without cause."""
    measured = metrics(True)
    measured["fidelity"][CLOSENESS] = {"value": low + 0.05, "low": low, "high": low + 0.1, "n": 100}
    (folder / "report").mkdir()
    near = {**NEAREST, "c_t": {"value": sum(c_t) / 2, "low": c_t[0], "high": c_t[1], "n": 100}}
    (folder / "report" / "nearest.json").write_text(json.dumps(near))
    text = " ".join(one.text for one in statements(measured, Files((folder,))))
    assert f"Copies of training pictures: {verdict}" in text
    assert "from that one to the next training picture" in text


def test_all_parameters_stand_in_a_report(folder: Path) -> None:
    """Catches a report that names a recipe alone, which a later release may change."""
    facts, files = finished()
    for one in (facts, replace(facts, recipe="scenes", changed={})):
        assert "<code>evaluate.n</code></td><td>2</td>" in keep(one, files, folder).read_text()


def test_figures_by_chance_alone_are_no_figures_without_a_value(folder: Path) -> None:
    """Catches rows with an empty value: what they are by chance belongs to a table of its own."""
    write_json(
        "reports/a/metrics.json", {"read": {"b": {"d": 0.9}, "c": {"d": 0.8}}, "read_by_chance": 0.1, "loss": 1.5}
    )
    facts = replace(finished()[0], stage="a", outputs={"reports/a/metrics.json": "a" * 32})
    tables = [block for block in figures(facts, Files((folder,))) if isinstance(block, Table)]
    assert [[row[0] for row in table.rows] for table in tables[1:]] == [[Cell("loss")], [Cell("read")]]
    assert all(cell != Cell("", "number") for table in tables for row in table.rows for cell in row)
