"""What counts as right."""

import numpy as np
import pytest
import torch

from darkroom.evaluation.alignment import Asked, attribute_scores, class_scores, differ, mean_of, share_scores
from darkroom.evaluation.estimates import Estimate

HEADS = ["layout", "shape", "size"]


def asked(labels: torch.Tensor, named: torch.Tensor) -> Asked:
    return Asked(["a thing"] * len(labels), labels, named)


def test_only_named_and_present_attributes_count() -> None:
    labels = torch.tensor([[0, 1, -1], [1, 2, 0], [1, 0, 1]])
    named = torch.tensor([[True, True, True], [True, True, False], [True, False, True]])
    seen = torch.tensor([[0, 1, -1], [1, 0, 1], [1, 3, 1]])
    # picture 0: two of two, its absent size not counted; 1: one of two, its unnamed size not counted; 2: two of two
    scores = attribute_scores(seen, asked(labels, named), HEADS)
    found = scores.estimates(200, np.random.default_rng(0))
    assert scores.values()["attribute_accuracy"] == pytest.approx(5 / 6)
    assert scores.values()["exact_match"] == pytest.approx(2 / 3)
    each = found["by_attribute"]
    assert isinstance(each, dict)
    assert {name: (e.value, e.n) for name, e in each.items()} == {"layout": (1, 3), "shape": (0.5, 2), "size": (1, 1)}


def test_a_thing_that_nobody_asked_for_is_not_exact() -> None:
    """A one-thing caption with a second thing drawn was counted as exact: what is absent was never read."""
    labels, named = torch.tensor([[1, -1, -1]]).expand(3, -1), torch.tensor([[True, False, False]]).expand(3, -1)
    seen = torch.tensor([[1, -1, -1], [1, 2, -1], [0, -1, -1]])
    scores = attribute_scores(seen, asked(labels, named), HEADS)
    assert scores.right[:, 1].tolist() == [1, 0, 0]
    assert scores.values()["attribute_accuracy"] == pytest.approx(2 / 3), "what is asked for and there still counts"


def test_an_attribute_nobody_names_and_a_picture_that_names_nothing_are_left_out() -> None:
    labels = torch.tensor([[0, 1, 0], [0, 1, 0]])
    named = torch.tensor([[True, False, False], [False, False, False]])
    found = attribute_scores(labels, asked(labels, named), HEADS).estimates(200, np.random.default_rng(0))
    each, match = found["by_attribute"], found["exact_match"]
    assert isinstance(each, dict)
    assert isinstance(match, Estimate)
    assert set(each) == {"layout"}
    assert (match.value, match.n) == (1, 1)


def test_classes_are_counted_as_asked_for() -> None:
    labels, seen = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([0, 1, 2, 2, 0])
    scores = class_scores(seen, labels, ["zero", "one", "two"])
    assert scores.values() == pytest.approx({"class_accuracy": 3 / 5, "by_class.zero": 1 / 2, "by_class.two": 2 / 3})


def test_two_readings_are_averaged_and_their_difference_counted() -> None:
    """The headline must be both judges' word, and show where these are two."""
    first, second = (share_scores("caption_retrieval", torch.tensor(x)) for x in ([1, 1, 0, 1], [1, 0, 0, 0]))
    assert mean_of([first, second]).values() == {"caption_retrieval": 0.5}
    assert differ(first, second).tolist() == [False, True, False, True]
    assert first.take(torch.tensor([2, 3])).values() == {"caption_retrieval": 0.5}


def test_no_picture_gives_no_figure() -> None:
    """Where every caption stands in train, the figures over the others do not exist; they are no error."""
    scores = share_scores("caption_retrieval", torch.ones(3)).take(torch.tensor([], dtype=torch.int64))
    assert (scores.values(), scores.estimates(100, np.random.default_rng(0))) == ({}, {})
