"""Does a picture show what was asked for? One judge's reading, compared with what was asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from darkroom.evaluation.estimates import Array, Estimate, bootstrap_ratios

Figures = dict[str, Estimate | dict[str, Estimate]]


@dataclass(frozen=True)
class Asked:
    """What N pictures are to show.

    captions: a text each. labels: (N, H) int64, ABSENT (-1) where nothing is to be seen. mentioned: (N, H) bool,
    whether the caption says so.
    """

    captions: list[str]
    labels: Tensor
    mentioned: Tensor

    def __len__(self) -> int:
        return len(self.captions)

    def take(self, rows: Tensor) -> "Asked":
        """Of pictures `rows` (n,) int64."""
        return Asked([self.captions[i] for i in rows.tolist()], self.labels[rows], self.mentioned[rows])


@dataclass(frozen=True)
class Scores:
    """What is right in N pictures, in K figures: each is the ratio of a column of `right` to one of `asked`, summed.

    names: `exact_match`, say, or `by_attribute.layout`. right, asked: (N, K) float64.
    """

    names: list[str]
    right: Tensor
    asked: Tensor

    def __len__(self) -> int:
        return len(self.right)

    def take(self, rows: Tensor) -> "Scores":
        """Those of pictures `rows` (n,) int64."""
        return Scores(self.names, self.right[rows], self.asked[rows])

    def values(self) -> dict[str, float]:
        """The figures for which something was asked."""
        right, asked = self.right.sum(dim=0), self.asked.sum(dim=0)
        return {name: float(right[i] / asked[i]) for i, name in enumerate(self.names) if asked[i] > 0}

    def estimates(self, resamples: int, rng: np.random.Generator) -> Figures:
        """The figures for which something was asked, with bootstrap intervals over pictures; {} without pictures."""
        there = self.asked.sum(dim=0) > 0
        names = [name for name, yes in zip(self.names, there.tolist(), strict=True) if yes]
        if not names:
            return {}
        right: Array = self.right[:, there].numpy()
        asked: Array = self.asked[:, there].numpy()
        found: Figures = {}
        for name, estimate in zip(names, bootstrap_ratios(right, asked, resamples, rng), strict=True):
            group, dot, one = name.partition(".")
            if dot:
                members = found.setdefault(group, {})
                assert isinstance(members, dict)
                members[one] = estimate
            else:
                found[name] = estimate
        return found


def mean_of(readings: Sequence[Scores]) -> Scores:
    """The mean over several judges' scores of the same pictures."""
    right = torch.stack([scores.right for scores in readings]).mean(dim=0)
    return Scores(readings[0].names, right, readings[0].asked)


def joined(sets: Sequence[Scores]) -> Scores:
    """The scores of several sets of pictures."""
    return Scores(sets[0].names, torch.cat([one.right for one in sets]), torch.cat([one.asked for one in sets]))


def differ(first: Scores, second: Scores) -> Tensor:
    """The pictures on which two judges disagree: (N,) bool."""
    return (first.right != second.right).any(dim=1)


def attribute_scores(predicted: Tensor, asked: Asked, heads: Sequence[str]) -> Scores:
    """Attributes (N, H) read off pictures against those their captions name; ABSENT where nothing was seen or asked.

    `attribute_accuracy` is over all (picture, attribute) pairs that the caption names and that are to be present;
    `by_attribute` is the same for each. `exact_match` is the share of the pictures in which all that the caption names
    is right, and in which no attribute is seen that is to be absent: a second thing that nobody asked for is a fault.
    Pictures whose caption names nothing count in none.
    """
    names = [*("attribute_accuracy", "exact_match"), *(f"by_attribute.{head}" for head in heads)]
    counts = asked.mentioned & (asked.labels >= 0)
    right = counts & (predicted == asked.labels)
    too_much = ((asked.labels < 0) & (predicted >= 0)).any(dim=1, keepdim=True)
    some = counts.any(dim=1, keepdim=True)
    exact = some & ~too_much & (right == counts).all(dim=1, keepdim=True)
    return Scores(
        names,
        _columns(right.sum(dim=1, keepdim=True), exact, right),
        _columns(counts.sum(dim=1, keepdim=True), some, counts),
    )


def among_scores(nearest: Tensor, asked: Asked, heads: Mapping[int, str]) -> Scores:
    """Whether what a caption names is among the classes (N, H, K) that a picture comes nearest to.

    Args:
        heads: of those attributes for which it is asked, the place and the name of the figure.
    """
    chosen = list(heads)
    counts = (asked.mentioned & (asked.labels >= 0))[:, chosen]
    right = counts & (nearest[:, chosen] == asked.labels[:, chosen, None]).any(dim=2)
    return Scores(list(heads.values()), _columns(right), _columns(counts))


def beside(first: Scores, second: Scores) -> Scores:
    """The figures of two readings of the same pictures."""
    right, asked = torch.cat([first.right, second.right], dim=1), torch.cat([first.asked, second.asked], dim=1)
    return Scores([*first.names, *second.names], right, asked)


@dataclass(frozen=True)
class Check:
    """Whether a judge reads one thing off real pictures; right: (n,) bool, of those where it can be asked.

    chance: the accuracy of the best constant answer.
    """

    name: str
    right: Tensor
    chance: float


def attribute_checks(predicted: Tensor, labels: Tensor, heads: Sequence[str]) -> list[Check]:
    """Two checks for each attribute: its class where it is present, and whether it is present.

    They are separate, for a judge that recognises whether there is a second thing, but not what it is, would be right
    more often than by always answering "absent". What is the same in all pictures is left out. A shuffled reading is
    expected to be right no more often than the best constant answer.

    Args:
        predicted, labels: (N, H) int64, ABSENT where nothing was seen or is.
    """
    checks = []
    for i, head in enumerate(heads):
        seen, there = predicted[:, i], labels[:, i] >= 0
        present, frequency = labels[there, i], float(there.double().mean())
        most = float((present == present.mode().values).double().mean()) if len(present) else 1.0
        if most < 1:
            checks.append(Check(head, seen[there] == present, most))
        if 0 < frequency < 1:
            checks.append(Check(f"presence of {head}", (seen >= 0) == there, max(frequency, 1 - frequency)))
    return checks


def class_scores(predicted: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Classes read off N pictures against those asked for, both (N,) int64: `class_accuracy`, and `by_class`."""
    right = (predicted == labels)[:, None]
    asked = labels[:, None] == torch.arange(len(classes))  # (N, classes)
    names = ["class_accuracy", *(f"by_class.{name}" for name in classes)]
    return Scores(names, _columns(right, right & asked), _columns(labels[:, None] >= 0, asked))


def share_scores(name: str, right: Tensor) -> Scores:
    """One figure, a mean over N pictures; right: (N,)."""
    return Scores([name], _columns(right[:, None]), torch.ones(len(right), 1, dtype=torch.float64))


def top(figures: Mapping[str, object]) -> list[str]:
    """The names of the figures outside groups."""
    return [name for name, figure in figures.items() if isinstance(figure, Estimate)]


def _columns(*columns: Tensor) -> Tensor:
    return torch.cat([column.double() for column in columns], dim=1)
