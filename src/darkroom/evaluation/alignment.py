"""Does a picture show what its caption says? As the judge reads it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from darkroom.evaluation.estimates import Array, Estimate, bootstrap_mean, bootstrap_ratios

Figures = dict[str, Estimate | dict[str, Estimate]]


def attribute_alignment(
    predicted: Tensor, labels: Tensor, named: Tensor, heads: Sequence[str], resamples: int, rng: np.random.Generator
) -> Figures:
    """Attributes read off N pictures against those their captions name.

    Args:
        predicted, labels: (N, H) int64; a label of -1 is an attribute of an absent object.
        named: (N, H) bool, whether the caption says it. Only what is named and present counts.
        heads: the attributes' names.

    Returns:
        `attribute_accuracy`, over all such (picture, attribute) pairs; `exact_match`, the share of pictures with all of
        theirs right, of the pictures with any; `by_attribute`, the accuracy of each attribute that is named at all.
        Intervals from a bootstrap over pictures.
    """
    asked = named & (labels >= 0)
    right = asked & (predicted == labels)
    some = asked.any(dim=1, keepdim=True)
    exact = some & (right == asked).all(dim=1, keepdim=True)
    there = asked.any(dim=0)
    overall, match, *each = bootstrap_ratios(
        _array(right.sum(dim=1, keepdim=True), exact, right[:, there]),
        _array(asked.sum(dim=1, keepdim=True), some, asked[:, there]),
        resamples,
        rng,
    )
    names = [name for name, yes in zip(heads, there.tolist(), strict=True) if yes]
    by_attribute = dict(zip(names, each, strict=True))
    return {"attribute_accuracy": overall, "exact_match": match, "by_attribute": by_attribute}


def matches(predicted: Tensor, labels: Tensor, named: Tensor) -> list[bool]:
    """For each of N pictures whether all that its caption names is right; arguments as in `attribute_alignment`."""
    wrong = named & (labels >= 0) & (predicted != labels)
    return [not bad for bad in wrong.any(dim=1).tolist()]


def class_alignment(
    predicted: Tensor, labels: Tensor, classes: Sequence[str], resamples: int, rng: np.random.Generator
) -> Figures:
    """Classes read off N pictures against those asked for, both (N,) int64: `class_accuracy`, and `by_class`."""
    right = (predicted == labels)[:, None]
    asked = labels[:, None] == torch.arange(len(classes))  # (N, classes)
    there = asked.any(dim=0)
    every = torch.ones_like(right)
    overall, *each = bootstrap_ratios(
        _array(right, right & asked[:, there]), _array(every, asked[:, there]), resamples, rng
    )
    names = [name for name, yes in zip(classes, there.tolist(), strict=True) if yes]
    return {"class_accuracy": overall, "by_class": dict(zip(names, each, strict=True))}


def retrieval_alignment(right: Tensor, resamples: int, rng: np.random.Generator) -> Figures:
    """`caption_retrieval`: how often a picture's own caption is the best of its group; right: (N,) bool."""
    return {"caption_retrieval": bootstrap_mean(right.double().numpy(), resamples, rng)}


def _array(*columns: Tensor) -> Array:
    out: Array = torch.cat([column.double() for column in columns], dim=1).numpy()
    return out
