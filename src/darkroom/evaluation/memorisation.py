"""Are drawn pictures copies of training pictures? Their nearest neighbours among these, and what they say, in the
features of the judges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.cluster.vq import kmeans2, vq
from torch import Tensor

from darkroom.core.seeds import numpy_rng
from darkroom.core.tensors import batches, save_png, to_pil
from darkroom.data.fingerprint import fingerprint
from darkroom.data.halves import halves
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation.drawing import Drawn
from darkroom.evaluation.estimates import NORMAL, Estimate, TooFewError, bootstrap_mean
from darkroom.evaluation.judge import Judge
from darkroom.view.sheet import Plate, table

TRAINING_PICTURES = 10_000  # at most, among which neighbours are sought
SHOWN = 3  # neighbours of a picture
ROWS_AT_ONCE = 1000
CELLS, IN_A_CELL = 10, 20  # of C_T: at most so many, with so many drawn and real pictures each on average at least
TINY = 1e-9  # training pictures that are equal are so far apart
LEAST_IN_A_CELL = 5  # of either kind; a cell with fewer is left out


@dataclass(frozen=True)
class Neighbours:
    """Of each of N drawn pictures the nearest training pictures, nearest first, and how far away they are.

    rows: (N, SHOWN) int64 of train. distances: likewise, in root mean squares of the training features.
    apart: likewise, how far each of these training pictures is from the nearest other one.
    """

    rows: Tensor
    distances: Tensor
    apart: Tensor

    def likeliest(self, n: int) -> list[int]:
        """The n drawn pictures that are likeliest to be copies: those nearest to a training picture, for how far that
        is from another."""
        order: list[int] = (self.distances / self.apart.clamp(min=TINY))[:, 0].argsort()[:n].tolist()
        return order


@dataclass(frozen=True)
class _Near:
    """What one judge sees, in its features.

    among: (M, F), of the training pictures that it was not trained on. drawn: (N, F). real: (N, F), of several
    captions' one picture once.
    neighbours: of drawn pictures. usual: (N,), the distance of real ones to their nearest.
    authentic, real_authentic: (N,) bool, see `authentic`.
    """

    among: Tensor
    drawn: Tensor
    real: Tensor
    neighbours: Neighbours
    usual: Tensor
    authentic: Tensor
    real_authentic: Tensor


def memorisation(
    judges: Sequence[Judge], drawn: Drawn, train: PreparedSplit, seed: int, resamples: int
) -> tuple[dict[str, Any], Neighbours]:
    """Figures of copying, with those of as many real held-out pictures, and the neighbours to be looked at.

    Each judge compares with the training pictures that it was not trained on, so that together they compare with all;
    the distance to the nearest is the smaller of the two, in units of each judge's features.

    authentic: the share of pictures that lie farther from their nearest training picture than this lies from another
        (AuthPct; Alaa et al. 2022, section 4.3), by both judges. Copies have 0; `real` says what real pictures have.
    c_t: see `copying`; the mean over the cells of either judge.

    Raises:
        TooFewError: there are too few training pictures for a judge.
    """
    rows = train.uncropped()
    uncropped = rows[_spread(len(rows))]
    half = halves(train, uncropped)
    found = [_near(judge, drawn, train, uncropped[half != judge.half]) for judge in judges]
    both, both_real = (
        torch.stack([getattr(one, name).double() for one in found]).amin(dim=0)
        for name in ("authentic", "real_authentic")
    )
    nearest = torch.stack([one.neighbours.distances[:, 0] for one in found]).amin(dim=0)
    usual = torch.stack([one.usual for one in found]).amin(dim=0)
    scores = [copying((one.drawn, nearest), (one.real, usual), one.among, seed) for one in found]
    c_t, variance = (sum(score[i] for score in scores) / len(scores) for i in (0, 1))
    spread = NORMAL * variance**0.5
    figures = {
        "authentic": bootstrap_mean(both.numpy(), resamples, numpy_rng(seed, "authentic")),
        "c_t": Estimate(c_t, c_t - spread, c_t + spread, len(drawn)),
        "c_t_cells": min(score[2] for score in scores),
        "real": {"authentic": float(both_real.mean()), "c_t": 0.0},
    }
    rows, distances, apart = (
        torch.cat([getattr(one.neighbours, name) for one in found], dim=1) for name in ("rows", "distances", "apart")
    )
    order = distances.argsort(dim=1)[:, :SHOWN]
    return figures, Neighbours(*(of.gather(1, order) for of in (rows, distances, apart)))


def show_neighbours(drawn: Drawn, found: Neighbours, train: PreparedSplit, n: int, path: Path) -> None:
    """The n pictures that are likeliest to be copies, each beside its nearest training pictures."""
    rows = []
    for i in found.likeliest(n):
        near = [to_pil(picture) for picture in train.squares(found.rows[i])]
        caption = (
            f"{float(found.distances[i, 0]):.2f} to the nearest, {float(found.apart[i, 0]):.2f} from it to the next"
        )
        rows.append(Plate([to_pil(drawn.pictures[i]), *near], caption))
    headings = ["nearest training picture", *("next" for _ in range(found.rows.shape[1] - 1))]
    save_png(path, table(["drawn", *headings], rows))


def _spread(n: int) -> Tensor:
    """TRAINING_PICTURES of n, or all, evenly spread: int64."""
    return torch.linspace(0, n - 1, min(n, TRAINING_PICTURES)).long()


def _near(judge: Judge, drawn: Drawn, train: PreparedSplit, rows: Tensor) -> _Near:
    """Args: rows: (M,) int64 of train, that the judge was not trained on."""
    if len(rows) <= SHOWN:
        raise TooFewError(
            f"judge {judge.name} has not seen {len(rows)} of the training pictures, and {SHOWN + 1} are needed; give "
            "more of them"
        )
    among = torch.cat([judge.features(train.squares(rows[part])) for part in batches(len(rows), ROWS_AT_ONCE)]).double()
    unit = among.square().mean().sqrt()
    among = among / unit
    pictures = (drawn.pictures, drawn.distinct().real)
    generated, real = (judge.features(images).double() / unit for images in pictures)
    distances, nearest = _nearest(generated, among, SHOWN)
    usual, nearest_of_real = _nearest(real, among, 1)
    apart = _nearest(among, among, 2)[0][:, 1]  # the first is the picture itself
    return _Near(
        among,
        generated,
        real,
        Neighbours(rows[nearest], distances, apart[nearest]),
        usual[:, 0],
        authentic(distances[:, 0], apart[nearest[:, 0]]),
        authentic(usual[:, 0], apart[nearest_of_real[:, 0]]),
    )


def _nearest(points: Tensor, among: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of points (N, F) the k nearest `among` (M, F): distances and rows (N, k), nearest first."""
    found = [torch.cdist(points[rows], among).topk(k, largest=False) for rows in batches(len(points), ROWS_AT_ONCE)]
    return torch.cat([one.values for one in found]), torch.cat([one.indices for one in found])


def authentic(distances: Tensor, apart: Tensor) -> Tensor:
    """Whether each picture is farther from its nearest training picture than that is from another: (N,) bool.

    Args:
        distances: (N,) to the nearest training picture. apart: (N,) of that one to its own nearest.
    """
    return distances > apart


def copying(
    drawn: tuple[Tensor, Tensor], real: tuple[Tensor, Tensor], training: Tensor, seed: int
) -> tuple[float, float, int]:
    """C_T (Meehan et al. 2020, eq. 2) with its variance where nothing is copied, and the number of cells behind it.

    The Mann-Whitney statistic, standardised, of the distances of drawn and of real held-out pictures to their nearest
    training picture, in each cell of a k-means of the training features; the mean weighted by real pictures. About 0:
    no nearer than new real pictures; far below 0: copies, be it of some kinds of pictures alone; above: farther away.

    Args:
        drawn, real: features (N, F), and the distance (N,) of each to its nearest training picture.

    Raises:
        TooFewError: no cell has enough pictures of both.
    """
    cells = max(1, min(CELLS, min(len(drawn[0]), len(real[0])) // IN_A_CELL))
    centres, _ = kmeans2(training.numpy(), cells, minit="++", seed=np.random.default_rng(seed), missing="warn")
    in_cell_of_drawn, in_cell_of_real = (torch.from_numpy(vq(x.numpy(), centres)[0]) for x, _ in (drawn, real))
    scores, weights = [], []
    for cell in range(cells):
        ours, others = drawn[1][in_cell_of_drawn == cell], real[1][in_cell_of_real == cell]
        if min(len(ours), len(others)) < LEAST_IN_A_CELL:
            continue
        scores.append(standardised(ours, others))
        weights.append(float(len(others)))
    if not scores:
        raise TooFewError(
            f"C_T needs {LEAST_IN_A_CELL} drawn and as many real pictures of a kind, and {len(drawn[0])} drawn came; "
            "give more"
        )
    fractions = np.array(weights) / sum(weights)
    return float((fractions * np.array(scores)).sum()), float((fractions**2).sum()), len(scores)


def standardised(distances: Tensor, others: Tensor) -> float:
    """The Mann-Whitney statistic of distances (n,) above others (m,), as standard deviations from what chance gives."""
    n, m = len(distances), len(others)
    above = (distances[:, None] > others[None]).double() + 0.5 * (distances[:, None] == others[None]).double()
    return float((above.sum() - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5)


def duplicates(pictures: Tensor, train: PreparedSplit) -> dict[str, int]:
    """How many of N pictures (uint8, of the size of the data) equal a training picture, or another of the N, to the
    pixel."""
    ours = _fingerprints(lambda rows: pictures[rows], len(pictures))
    theirs = set(_fingerprints(train.squares, len(train)))
    return {"equal_to_training": sum(one in theirs for one in ours), "equal_to_another": len(ours) - len({*ours})}


def _fingerprints(images: Callable[[Tensor], Tensor], n: int) -> list[bytes]:
    found = []
    for rows in batches(n, ROWS_AT_ONCE):
        pixels = images(rows).permute(0, 2, 3, 1).numpy()
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        found += [fingerprint(np.ascontiguousarray(one)) for one in pixels]
    return found
