"""A card's limits say what the figures say; a model that is bad, or that nobody can judge, is never passed over."""

import pytest

from darkroom.evaluation.limits import measured

UNKNOWN = "How far its pictures are from real ones is not known: no distance could be measured."


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 100}


def limits(drawn: float, chance: float, real: float) -> list[str]:
    alignment = {"test": {"exact_match": figure(drawn), "chance": {"exact_match": chance}}}
    evaluator = {"valid": True, "reason": None, "real": {"test": {"exact_match": figure(real)}}}
    return measured({"alignment": alignment, "evaluator": evaluator, "fidelity": {}, "withheld": {}})


@pytest.mark.parametrize(
    ("drawn", "chance", "real", "said"),
    [
        (0.95, 0.1, 0.99, None),
        (0.6, 0.1, 0.99, "Often it draws something else than it is asked for"),
        (0.12, 0.1, 0.99, "What is asked for is drawn hardly more often than by chance"),
        # Seven tenths of what judges get right that are wrong on four real pictures of five: as good as real, or not.
        (0.14, 0.016, 0.19, "its judges get only 0.19 of real test pictures right"),
        (0.45, 0.1, 0.52, None),
    ],
)
def test_what_is_asked_for(drawn: float, chance: float, real: float, said: str | None) -> None:
    """Would catch a card without a word on a model that draws blots, since its judges see little themselves."""
    *found, last = limits(drawn, chance, real)
    assert last == UNKNOWN
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
