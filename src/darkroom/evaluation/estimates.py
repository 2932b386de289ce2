"""A figure with what it is uncertain by: {value, low, high, n}, by a method valid for the figure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from darkroom.core.errors import DarkroomError

Array = npt.NDArray[np.float64]
COVERED = 0.95  # of repetitions, the interval is meant to hold the truth
NORMAL = 1.96  # standard deviations on either side
RESAMPLES_AT_ONCE = 500
HALVINGS = 40  # the half-width then varies by a tenth with the cuts; with 5 by a third


@dataclass(frozen=True)
class Estimate:
    """value, an interval of 95 % around it, and n, the number of independent samples behind it."""

    value: float
    low: float
    high: float
    n: int


def bootstrap_ratios(counted: Array, of: Array, resamples: int, rng: np.random.Generator) -> list[Estimate]:
    """The ratios sum(counted) / sum(of) of K figures, intervals by the percentile bootstrap over samples.

    Whole samples are drawn again, so figures that a sample gives several of (attributes of a picture) may depend on
    each other (Efron & Tibshirani 1993, chapter 13).

    Args:
        counted, of: (N, K). A column of ones in `of` gives a mean. Columns of `of` must not be all zero.

    Returns:
        K estimates; n is the number of samples with a part in the ratio.
    """
    n = len(counted)
    ratios = []
    for first in range(0, resamples, RESAMPLES_AT_ONCE):
        size = min(RESAMPLES_AT_ONCE, resamples - first)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)  # (size, N)
        total = weights @ of
        ratios.append(np.divide(weights @ counted, total, out=np.full_like(total, np.nan), where=total > 0))
    tail = (1 - COVERED) / 2
    low, high = np.nanquantile(np.concatenate(ratios), [tail, 1 - tail], axis=0)
    value, having = counted.sum(0) / of.sum(0), (of > 0).sum(0)
    figures = zip(value.tolist(), low.tolist(), high.tolist(), having.tolist(), strict=True)
    return [Estimate(*figure) for figure in figures]


def bootstrap_mean(values: Array, resamples: int, rng: np.random.Generator) -> Estimate:
    """The mean of values (N,), its interval by the percentile bootstrap."""
    return bootstrap_ratios(values[:, None], np.ones((len(values), 1)), resamples, rng)[0]


def least_of_share(value: float, n: int) -> float:
    """The lower end of Wilson's (1927) interval for a share of n samples.

    A bootstrap of few samples that are all alike is a point; this one is 0.34 for two of two.
    """
    z = NORMAL**2 / n
    half_width = math.sqrt(z * (value * (1 - value) + z / 4))
    return (value + z / 2 - half_width) / (1 + z)


class TooFewError(DarkroomError):
    """So few pictures that a figure cannot be had of them: it is withheld, and the others stand."""


def mean_of_independent(estimates: Sequence[Estimate], least: float, most: float) -> Estimate:
    """The mean of estimates that share no picture, from their intervals; it lies within [least, most]."""
    k = len(estimates)
    value = sum(e.value for e in estimates) / k
    below = sum((e.value - e.low) ** 2 for e in estimates) ** 0.5 / k
    above = sum((e.high - e.value) ** 2 for e in estimates) ** 0.5 / k
    return Estimate(value, max(value - below, least), min(value + above, most), min(e.n for e in estimates))


def from_halves(
    metric: Callable[[Tensor, Tensor], float], real: Tensor, generated: Tensor, rng: np.random.Generator
) -> Estimate:
    """A metric of two sets of features for which a bootstrap is invalid, such as FID or k-NN precision.

    Drawing with replacement puts copies into the sets, which such metrics see. So both sets are cut at random into two
    halves that share nothing, and the metric is taken on each pair of halves: two independent values a and b, with
    E[(a - b)^2] / 2 the variance at half the samples. Half of that is taken for the variance at all of them; `HALVINGS`
    cuts are averaged. The value itself is that of the whole sets, and keeps what bias it has at their size.

    Args:
        real, generated: (N, F) and (M, F).
    """
    squares = []
    for _ in range(HALVINGS):
        r, g = (torch.from_numpy(rng.permutation(len(x))) for x in (real, generated))
        halves = [metric(real[r[i::2]], generated[g[i::2]]) for i in range(2)]
        squares.append((halves[0] - halves[1]) ** 2)
    spread = NORMAL * (sum(squares) / len(squares) / 4) ** 0.5
    value = metric(real, generated)
    return Estimate(value, max(value - spread, 0.0), value + spread, min(len(real), len(generated)))
