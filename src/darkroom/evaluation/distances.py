"""How far generated pictures are from real ones, and whether they are copies: pure functions of features (N, F)."""

import numpy as np
import torch
from torch import Tensor

from darkroom.evaluation.estimates import NORMAL, Estimate, TooFewError

NEIGHBOURS = 3
KID_SUBSETS = 10
STUDENT = 2.262  # the 97.5 % quantile of Student's t with KID_SUBSETS - 1 degrees of freedom
ROWS_AT_ONCE = 1024


def fid(real: Tensor, generated: Tensor) -> float:
    """The Fréchet distance of the two Gaussians with the features' means and covariances (Heusel et al. 2017, eq. 6).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64. The trace of the root is the sum of the roots of the
    eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric. Biased upward at finite N, the more the fewer.
    """
    (m1, c1), (m2, c2) = _moments(real), _moments(generated)
    values, vectors = torch.linalg.eigh(c1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ c2 @ root).clamp(min=0).sqrt().sum()
    return max(float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * cross), 0.0)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    if len(features) < 2:
        raise TooFewError(f"a covariance needs 2 pictures, and {len(features)} came; give more test pictures")
    features = features.double()
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], features.shape[1])


def mmd(real: Tensor, generated: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy with the kernel (x·y / F + 1)^3 (Bińkowski et al. 2018, eq. 4).

    Its expectation is 0 for samples of one distribution, so it is negative half of the time there.
    """
    x, y = real.double(), generated.double()
    n, m, width = len(x), len(y), x.shape[1]
    xx, yy, xy = ((a @ b.T / width + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def kid(real: Tensor, generated: Tensor, rng: np.random.Generator) -> Estimate:
    """Kernel inception distance (Bińkowski et al. 2018): the mean of `mmd` over subsets.

    The subsets are disjoint, so their values are independent and the interval of their mean is Student's.
    """
    r, g = (torch.from_numpy(rng.permutation(len(x))) for x in (real, generated))
    if min(len(r), len(g)) < 2 * KID_SUBSETS:
        raise TooFewError(
            f"KID needs {2 * KID_SUBSETS} pictures, and {min(len(r), len(g))} came; give more test pictures"
        )
    values = np.array([mmd(real[r[i::KID_SUBSETS]], generated[g[i::KID_SUBSETS]]) for i in range(KID_SUBSETS)])
    value, spread = float(values.mean()), STUDENT * float(values.std(ddof=1)) / KID_SUBSETS**0.5
    return Estimate(value, value - spread, value + spread, min(len(real), len(generated)))


def precision(real: Tensor, generated: Tensor, k: int = NEIGHBOURS) -> float:
    """Improved precision (Kynkäänniemi et al. 2019, eq. 1 and 2): how many of the generated pictures are plausible.

    The share of generated features within the distance of some real one to its k-th neighbour among the real ones.
    """
    return _covered(generated, real, k)


def recall(real: Tensor, generated: Tensor, k: int = NEIGHBOURS) -> float:
    """Improved recall: `precision` with the roles exchanged, how much of the real pictures' variety is covered."""
    return _covered(real, generated, k)


def _covered(points: Tensor, by: Tensor, k: int) -> float:
    if len(by) <= k:
        raise TooFewError(f"{k} neighbours need {k + 1} pictures, and {len(by)} came; give more test pictures")
    points, by = points.double(), by.double()
    radii = torch.cat(  # the first neighbour is the point itself
        [torch.cdist(rows, by).kthvalue(k + 1, dim=1).values for rows in torch.split(by, ROWS_AT_ONCE)]
    )
    inside = [(torch.cdist(rows, by) <= radii).any(dim=1) for rows in torch.split(points, ROWS_AT_ONCE)]
    return float(torch.cat(inside).double().mean())


def nearest(points: Tensor, among: Tensor) -> Tensor:
    """The distance (N,) of each of points (N, F) to its nearest neighbour in `among` (M, F)."""
    return torch.cat([torch.cdist(rows, among).min(dim=1).values for rows in torch.split(points, ROWS_AT_ONCE)])


def closeness_to_training(drawn: Tensor, held_out: Tensor) -> Estimate:
    """The probability that a generated picture lies closer to the training pictures than a real test picture does.

    The Mann-Whitney statistic of the distances to the nearest training feature (Meehan et al. 2020, "A non-parametric
    test to detect data-copying", section 3). 0.5: no closer than new real pictures; 1: copies; below 0.5: farther than
    real pictures are. The interval is DeLong's (1988), from the variance over the pictures of both sets.

    Args:
        drawn, held_out: of generated and of real test pictures the distance to the nearest training picture (N,), (M,).
    """
    by_drawn = _farther(drawn, held_out)
    by_held_out = 1 - _farther(held_out, drawn)
    value = float(by_drawn.mean())
    spread = NORMAL * float(by_drawn.var() / len(drawn) + by_held_out.var() / len(held_out)) ** 0.5
    return Estimate(value, max(value - spread, 0.0), min(value + spread, 1.0), min(len(drawn), len(held_out)))


def _farther(distances: Tensor, others: Tensor) -> Tensor:
    """For each of the distances (N,) the share of the others (M,) that is larger, equal ones counting half: (N,)."""
    ordered = others.sort().values
    larger = len(others) - torch.searchsorted(ordered, distances, right=True)
    no_smaller = len(others) - torch.searchsorted(ordered, distances)
    return (larger + no_smaller).double() / (2 * len(others))
