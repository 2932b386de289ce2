"""The laws of FID, KID, precision and recall."""

import numpy as np
import pytest
import torch
from torch import Tensor

from darkroom.evaluation.distances import closeness_to_training, fid, kid, mmd, nearest, precision, recall
from darkroom.evaluation.estimates import TooFewError


def gaussian(n: int, seed: int, mean: float = 0.0, scale: float = 1.0, width: int = 6) -> Tensor:
    """Samples whose mean and covariance are exactly mean and scale^2 times the identity."""
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    result: Tensor = mean + scale * (x @ vectors / values.sqrt())
    return result


def test_fid_of_two_gaussians_is_the_closed_form() -> None:
    """|m1 - m2|^2 + F (s1 - s2)^2 for covariances that are multiples of the identity."""
    a, b = gaussian(500, 0), gaussian(300, 1, mean=2.0, scale=3.0)
    assert fid(a, b) == pytest.approx(6 * 2.0**2 + 6 * (1 - 3) ** 2, rel=1e-9)
    assert fid(a, b) == pytest.approx(fid(b, a), rel=1e-9)


def test_fid_of_general_covariances_is_that_of_the_matrix_root() -> None:
    linalg = pytest.importorskip("scipy.linalg", reason="the reference root is scipy's")
    g = torch.Generator().manual_seed(0)
    mix = [torch.randn(5, 5, generator=g, dtype=torch.float64) for _ in range(2)]
    a, b = (torch.randn(200, 5, generator=g, dtype=torch.float64) @ m for m in mix)
    ca, cb = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    root = np.trace(linalg.sqrtm(ca @ cb).real)
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(ca) + np.trace(cb) - 2 * root
    assert fid(a, b) == pytest.approx(expected, rel=1e-9)


def test_equal_sets_are_at_distance_zero_even_with_singular_covariances() -> None:
    x = gaussian(50, 0)
    assert fid(x, x) == pytest.approx(0, abs=1e-9)
    dead = torch.cat([x, torch.zeros(50, 3), x[:, :2]], dim=1)  # a feature that never fires, two that repeat
    assert fid(dead, dead) == pytest.approx(0, abs=1e-6)
    assert precision(x, x) == recall(x, x) == 1


def test_kid_is_unbiased_for_equal_distributions_and_sees_others() -> None:
    g = torch.Generator().manual_seed(0)
    values = [mmd(torch.randn(60, 4, generator=g), torch.randn(60, 4, generator=g)) for _ in range(200)]
    error = np.std(values) / len(values) ** 0.5
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0 < max(values)
    far = kid(torch.randn(200, 4, generator=g), torch.randn(200, 4, generator=g) + 1, np.random.default_rng(0))
    assert 0 < far.low < far.value < far.high
    assert far.n == 200


def test_kid_is_the_sum_over_pairs_it_says() -> None:
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(5, 3, generator=g), torch.randn(4, 3, generator=g)

    def k(a: Tensor, b: Tensor) -> float:
        return float((a.double() @ b.double() / 3 + 1) ** 3)

    xx = np.mean([k(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert mmd(x, y) == pytest.approx(xx + yy - 2 * xy, rel=1e-9)


def test_precision_falls_with_implausible_pictures_and_recall_with_missing_ones() -> None:
    g = torch.Generator().manual_seed(0)
    left, right = torch.randn(200, 2, generator=g), torch.randn(200, 2, generator=g) + 100
    elsewhere = torch.randn(200, 2, generator=g) - 300
    real = torch.cat([left, right])
    one_mode = torch.randn(400, 2, generator=g)
    assert precision(real, one_mode) > 0.9
    assert 0.4 < recall(real, one_mode) < 0.55
    half_wrong = torch.cat([left + 0.01, elsewhere])
    assert 0.45 < precision(real, half_wrong) < 0.55
    assert precision(real, elsewhere) == recall(real, elsewhere) == 0


def test_a_point_is_no_neighbour_of_itself() -> None:
    """With k = 1 the radius is the distance to another point."""
    real = torch.tensor([[0.0], [1.0], [10.0]])
    at = torch.tensor([[-0.9], [1.9], [-1.1], [18.0], [19.5]])
    assert precision(real, at, k=1) == pytest.approx(3 / 5)


def test_distances_do_not_depend_on_how_rows_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = gaussian(70, 0), gaussian(50, 1)
    before = precision(x, y), recall(x, y), nearest(x, y)
    monkeypatch.setattr("darkroom.evaluation.distances.ROWS_AT_ONCE", 7)
    assert (precision(x, y), recall(x, y)) == before[:2]
    assert torch.allclose(nearest(x, y), before[2])


def test_copies_of_training_pictures_are_noticed() -> None:
    g = torch.Generator().manual_seed(0)
    train, test, fresh = (torch.randn(n, 4, generator=g) for n in (300, 200, 200))
    held_out = nearest(test, train)
    assert closeness_to_training(nearest(train[:100], train), held_out).value == 1
    assert closeness_to_training(nearest(fresh + 50, train), held_out).value == 0
    assert closeness_to_training(held_out, held_out).value == pytest.approx(0.5)


def test_new_pictures_are_no_closer_than_the_interval_allows() -> None:
    g = torch.Generator().manual_seed(0)
    covered = []
    for _ in range(60):
        train, test, fresh = (torch.randn(n, 3, generator=g) for n in (200, 80, 80))
        new = closeness_to_training(nearest(fresh, train), nearest(test, train))
        covered.append(new.low < 0.5 < new.high)
    assert np.mean(covered) > 0.85


def test_too_few_pictures_are_told_apart_from_other_faults() -> None:
    """One figure that cannot be had must not take the others with it: its error is of a kind that can be caught."""
    few = gaussian(10, 0)
    with pytest.raises(TooFewError, match="KID needs 20 pictures, and 10 came"):
        kid(few, few, np.random.default_rng(0))
    with pytest.raises(TooFewError, match="a covariance needs 2 pictures, and 1 came"):
        fid(few[:1], few)
    with pytest.raises(TooFewError, match="3 neighbours need 4 pictures, and 3 came"):
        precision(few[:3], few)
