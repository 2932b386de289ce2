"""Charts: values where they belong, whatever the numbers are."""

import csv
import io
from xml.etree import ElementTree

import pytest

from darkroom.reporting.charts import curves, number, strip, ticks
from darkroom.reporting.graph import WIDEST, lineage_file, lineage_graph
from darkroom.reporting.score_table import score_table
from tests.support.registering import FIGURES


@pytest.mark.parametrize("points", [[(1, 0.0)], [(1, 5.0), (2, 5.0)], [(0, -3.0), (10, 1e9)], [(1, float("nan"))], []])
def test_any_numbers_make_a_chart_or_none(points: list[tuple[float, float]]) -> None:
    """Catches a division by the extent of one point, and a logarithm of what is not positive."""
    assert "nan" not in curves("a", {"b": points}, {"level": 0.0})


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.5, 1.0])
    assert all(3 <= one <= 41 for one in ticks(3, 41))


def test_numbers_are_short() -> None:
    assert [number(x) for x in (0.98765, 20000.0, 0.00002, 3.0)] == ["0.9877", "20,000", "0.00002", "3"]


def test_a_strip_escapes_what_it_is_read_against() -> None:
    assert "<b>" not in strip(0.5, 0.4, 0.6, {"<b>": 0.1}, True)


def test_an_arrow_past_a_row_has_a_lane_of_its_own() -> None:
    """Catches arrows that disappear behind a box: a stage would look as if it were made from another."""
    lineage = {
        "a": {"inputs": {"raw": "1"}, "outputs": {"x": "2"}},
        "b": {"inputs": {"x": "2"}, "outputs": {"y": "3"}},
        "c": {"inputs": {"x": "2"}, "outputs": {"z": "4"}},
        "d": {"inputs": {"y": "3"}, "outputs": {"w": "5"}},
        "e": {"inputs": {"w": "5", "z": "4"}, "outputs": {"v": "6"}},
    }
    drawn = str(lineage_graph(lineage))
    assert drawn.count('class="arrow"') == 6, "from outside, to b and c, to d, and two to e"
    assert max(path.count("C") for path in drawn.split("<path")[1:]) == 2


def test_a_drawn_lineage_is_a_picture_by_itself() -> None:
    """Catches a file that no program shows: escaped, without its namespace, or black on black for want of a style."""
    wide = {f"s{i}": {"inputs": {"raw": "1"}, "outputs": {f"<x{i}>": "2"}} for i in range(9)}
    for lineage in (wide, {"a": {"inputs": {}, "outputs": {"x": "2"}}}):
        root = ElementTree.fromstring(lineage_file(lineage, "a"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.find("{http://www.w3.org/2000/svg}style") is not None
        assert 0 < int(root.attrib["width"]) <= WIDEST
        shape = [float(value) for value in root.attrib["viewBox"].split()[2:]]
        assert int(root.attrib["height"]) == pytest.approx(int(root.attrib["width"]) * shape[1] / shape[0], abs=1)


def test_scores_are_a_table_with_what_they_are_read_against() -> None:
    rows = list(csv.DictReader(io.StringIO(score_table(FIGURES))))
    assert [row["score"] for row in rows][:2] == ["attribute_accuracy", "exact_match"]
    assert {row["of"] for row in rows} == {"alignment.test", "fidelity", "vae"}
    assert (rows[1]["value"], rows[1]["95 % interval"], rows[1]["pictures"]) == ("0.7", "0.64 to 0.76", "200")
    assert "chance 0.01" in rows[1]["to be read against"]


def test_a_circle_in_a_lineage_ends() -> None:
    assert lineage_graph(
        {"a": {"inputs": {"y": "1"}, "outputs": {"x": "2"}}, "b": {"inputs": {"x": "2"}, "outputs": {"y": "1"}}}
    )
