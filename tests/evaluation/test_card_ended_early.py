"""What the model card says of a training that ended before its last step.

Fault caught: a card that gives the planned number of steps as if all had been made.
"""

from typing import Any

import pytest

from darkroom.evaluation.card import _training


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"steps": 1400, "stop_at": 700}, "700 of 1400"),
        ({"steps": 1400, "stop_at": 1}, "1 of 1400"),
        ({"steps": 1400, "stop_at": 1400}, "1400"),
        ({"steps": 1400, "stop_at": None}, "1400"),
        ({"kind": "clip", "steps": 50, "stop_at": 20}, "20 of 50"),
        ({"kind": "pretrained"}, "–"),
    ],
)
def test_the_steps_are_those_that_were_made(section: dict[str, Any], said: str) -> None:
    row = next(line for line in _training({"train_part": section}).splitlines() if "train_part" in line)
    assert row.split(" | ")[2] == said
