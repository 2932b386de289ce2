"""Which weights are handed on."""

from torch import nn

from darkroom.training.engine.best import Best


def valued(layer: nn.Linear, value: float) -> nn.Linear:
    layer.weight.data.fill_(value)
    return layer


def test_the_lowest_value_wins_and_later_changes_do_not_reach_it() -> None:
    best, layer = Best(), nn.Linear(1, 1)
    for step, (value, weight) in enumerate([(3.0, 10.0), (1.0, 20.0), (2.0, 30.0), (1.0, 40.0)], 1):
        best.consider(step, value, valued(layer, weight))
    assert (best.value, best.step) == (1.0, 2)
    best.restore(valued(layer, 50.0))
    assert float(layer.weight.detach()) == 20.0


def test_without_candidates_the_last_weights_stay() -> None:
    layer = valued(nn.Linear(1, 1), 5.0)
    Best().restore(layer)
    assert float(layer.weight.detach()) == 5.0


def test_a_value_that_is_no_number_never_wins() -> None:
    best, layer = Best(), nn.Linear(1, 1)
    best.consider(1, 2.0, valued(layer, 1.0))
    best.consider(2, float("nan"), valued(layer, 2.0))
    best.restore(layer)
    assert float(layer.weight.detach()) == 1.0
