"""Intervals that hold what they say."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from darkroom.evaluation.distances import fid, precision
from darkroom.evaluation.estimates import bootstrap_mean, bootstrap_ratios, from_halves, least_of_share


def test_the_bootstrap_of_a_share_agrees_with_the_binomial() -> None:
    rng = np.random.default_rng(0)
    values = (np.arange(1000) < 900).astype(np.float64)
    found = bootstrap_mean(values, 2000, rng)
    deviation = (0.9 * 0.1 / 1000) ** 0.5
    assert found.value == 0.9
    assert found.n == 1000
    assert found.low == pytest.approx(0.9 - 1.96 * deviation, abs=0.002)
    assert found.high == pytest.approx(0.9 + 1.96 * deviation, abs=0.002)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    trials = [bootstrap_mean(rng.normal(3, 2, 80), 400, rng) for _ in range(200)]
    covered = np.mean([e.low <= 3 <= e.high for e in trials])
    assert 0.89 <= covered <= 0.985


def test_pictures_and_not_attributes_are_drawn_again() -> None:
    """Ten attributes that stand and fall together are one piece of evidence, not ten."""
    right = (np.arange(100) < 70).astype(np.float64)[:, None]
    rng = np.random.default_rng(2)
    single = bootstrap_ratios(right, np.ones((100, 1)), 2000, rng)[0]
    tenfold = bootstrap_ratios(10 * right, np.full((100, 1), 10.0), 2000, rng)[0]
    assert tenfold.value == single.value == pytest.approx(0.7)
    assert tenfold.high - tenfold.low == pytest.approx(single.high - single.low, rel=0.1)
    assert tenfold.n == 100


def test_a_ratio_counts_the_samples_that_take_part() -> None:
    counted = np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    of = np.array([[1.0, 0.0], [1.0, 0.0], [4.0, 3.0]])
    first, second = bootstrap_ratios(counted, of, 200, np.random.default_rng(0))
    assert (first.value, first.n) == (0.5, 3)
    assert (second.value, second.low, second.high, second.n) == (0.0, 0.0, 0.0, 1)


def test_the_spread_of_halves_is_that_of_the_whole() -> None:
    """For a difference of means the standard error is known."""

    def difference(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(b.mean() - a.mean())

    rng = np.random.default_rng(3)
    widths = []
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        real, generated = torch.randn(400, 1, generator=g), torch.randn(400, 1, generator=g) + 5
        found = from_halves(difference, real, generated, rng)
        assert found.value == pytest.approx(difference(real, generated))
        widths.append((found.high - found.low) ** 2)
    expected = 2 * 1.96 * (2 / 400) ** 0.5
    assert np.mean(widths) ** 0.5 == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("metric", [fid, precision])
def test_the_width_is_no_matter_of_luck(metric: Callable[[torch.Tensor, torch.Tensor], float]) -> None:
    """With five cuts, repetitions on the same pictures gave half-widths of FID from .05 to .18."""
    g = torch.Generator().manual_seed(4)
    real, generated = torch.randn(300, 16, generator=g), torch.randn(300, 16, generator=g) * 1.1 + 0.2
    found = [from_halves(metric, real, generated, np.random.default_rng(seed)) for seed in range(12)]
    widths = np.array([e.high - e.low for e in found])
    assert widths.std() / widths.mean() < 0.15


def test_few_samples_that_are_all_alike_are_not_certain() -> None:
    """The bootstrap of two right answers is the point 1. Expected values: Wilson's formula by hand."""
    assert least_of_share(1.0, 2) == pytest.approx(2 / (2 + 1.96**2))
    assert least_of_share(0.0, 10) == pytest.approx(0.0, abs=1e-12)
    assert least_of_share(0.5, 10_000) == pytest.approx(0.5 - 1.96 * 0.005, abs=1e-4)
