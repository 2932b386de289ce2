"""Faults in components of several kinds, whether behind `Kinds` or in a union. Each test says what it would catch."""

from typing import Any

import pytest
from pydantic import ValidationError

from darkroom.config.faults import explain
from tests.config.test_explain import Drawing, _importable

__all__ = ["_importable"]
ROUND = {"kind": "round", "radius": 1.0}
SOUND: dict[str, Any] = {
    "shape": ROUND,
    "frame": None,
    "fill": ROUND,
    "ink": None,
    "wash": True,
    "title": None,
    "ratios": [],
}


def lines(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(values)
    return list(explain(caught.value, values, Drawing, lambda key, kind: f"{'.'.join(key)} of {kind}"))


@pytest.mark.parametrize("key", ["shape", "fill"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({**ROUND, "radius": -1.0}, "{}.radius = -1.0: give a number > 0"),
        ({**ROUND, "raduis": 1.0}, "{}.raduis = 1.0 is an unknown key; did you mean radius?"),
        ({**ROUND, "round": 1}, "{}.round = 1 is an unknown key; remove it; known keys: kind, radius"),
        ({"kind": "round"}, "{0}.radius is missing; add it ({0}.radius of round has one)"),
        ({"kind": "sqare"}, "{}.kind = 'sqare': give round or square; did you mean square?"),
        ({"kind": 7}, "{}.kind = 7: give round or square"),
        ({"radius": 1.0}, "{0}.kind is missing; add it ({0}.kind of None has one)"),
        (7, "{} = 7: give a section with kind: round or square"),
        ({"kind": "square", "sides": [1, 2, 3, 0]}, "{}.sides.3 = 0: give a whole number >= 1 and <= 9"),
        ({"kind": "square", "sides": []}, "{}.sides = []: give a list of 4, each a whole number >= 1 and <= 9"),
    ],
)
def test_a_fault_of_a_component_is_said_where_it_is(key: str, value: Any, said: str) -> None:
    """Fails if one of the two ways to have kinds gives another message, or a kind's name becomes part of the key."""
    assert lines({**SOUND, key: value}) == [said.format(key)]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("wash", "perhaps", "wash = 'perhaps': give true or false or always"),
        ("ink", "blu", "ink = 'blu': give black or blue or null; did you mean blue?"),
        ("title", "", "title = '': give text that is not empty, or null"),
        ("frame", 3, "frame = 3: give a section with kind: round, or null"),
        ("ratios", [1.0, "x"], "ratios.1 = 'x': give a number"),
    ],
)
def test_a_fault_of_a_plain_value_says_all_that_is_allowed(key: str, value: Any, said: str) -> None:
    """Fails if a union's members each make a line, or null is left out."""
    assert lines({**SOUND, key: value}) == [said]
