"""What counts as right."""

import numpy as np
import pytest
import torch

from darkroom.evaluation.alignment import attribute_alignment, class_alignment, matches, retrieval_alignment
from darkroom.evaluation.estimates import Estimate

HEADS = ["layout", "shape", "size"]


def value(estimate: object) -> float:
    assert isinstance(estimate, Estimate)
    return estimate.value


def test_only_named_and_present_attributes_count() -> None:
    labels = torch.tensor([[0, 1, -1], [1, 2, 0], [1, 0, 1]])
    named = torch.tensor([[True, True, True], [True, True, False], [True, False, True]])
    seen = torch.tensor([[0, 1, 1], [1, 0, 1], [1, 3, 1]])
    # picture 0: two of two, its absent size not counted; 1: one of two, its unnamed size not counted; 2: two of two
    found = attribute_alignment(seen, labels, named, HEADS, 200, np.random.default_rng(0))
    assert value(found["attribute_accuracy"]) == pytest.approx(5 / 6)
    assert value(found["exact_match"]) == pytest.approx(2 / 3)
    each = found["by_attribute"]
    assert isinstance(each, dict)
    assert {name: (e.value, e.n) for name, e in each.items()} == {"layout": (1, 3), "shape": (0.5, 2), "size": (1, 1)}
    assert matches(seen, labels, named) == [True, False, True]


def test_an_attribute_nobody_names_and_a_picture_that_names_nothing_are_left_out() -> None:
    labels = torch.tensor([[0, 1, 0], [0, 1, 0]])
    named = torch.tensor([[True, False, False], [False, False, False]])
    found = attribute_alignment(labels, labels, named, HEADS, 200, np.random.default_rng(0))
    each, match = found["by_attribute"], found["exact_match"]
    assert isinstance(each, dict)
    assert isinstance(match, Estimate)
    assert set(each) == {"layout"}
    assert (match.value, match.n) == (1, 1)


def test_classes_are_counted_as_asked_for() -> None:
    asked, seen = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([0, 1, 2, 2, 0])
    found = class_alignment(seen, asked, ["zero", "one", "two"], 200, np.random.default_rng(0))
    assert value(found["class_accuracy"]) == pytest.approx(3 / 5)
    each = found["by_class"]
    assert isinstance(each, dict)
    assert {name: e.value for name, e in each.items()} == pytest.approx({"zero": 1 / 2, "two": 2 / 3})


def test_retrieval_is_a_share() -> None:
    right = torch.tensor([True, True, False, True])
    found = retrieval_alignment(right, 200, np.random.default_rng(0))["caption_retrieval"]
    assert value(found) == 0.75
