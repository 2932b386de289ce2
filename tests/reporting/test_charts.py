"""Charts: values where they belong, whatever the numbers are."""

import pytest

from darkroom.reporting.charts import curves, number, strip, ticks
from darkroom.reporting.graph import lineage_graph


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


def test_a_circle_in_a_lineage_ends() -> None:
    assert lineage_graph(
        {"a": {"inputs": {"y": "1"}, "outputs": {"x": "2"}}, "b": {"inputs": {"x": "2"}, "outputs": {"y": "1"}}}
    )
