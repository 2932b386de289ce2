"""Are generated pictures copies of training pictures?"""

import torch
from torch import Tensor

from darkroom.evaluation.estimates import NORMAL, Estimate


def closeness_to_training(drawn: Tensor, held_out: Tensor) -> Estimate:
    """The probability that a generated picture lies closer to the training pictures than a real test picture does.

    The Mann-Whitney statistic of the distances to the nearest training feature (Meehan et al. 2020, "A non-parametric
    test to detect data-copying", section 3). 0.5: no closer than new real pictures; 1: copies; below 0.5: farther than
    real pictures are. The interval is DeLong's (1988), from the variance over the pictures of both sets.

    Args:
        drawn, held_out: of generated and of real test pictures the distance to the nearest training picture (N,), (M,).
    """
    by_drawn = _share_farther(drawn, held_out)
    by_held_out = 1 - _share_farther(held_out, drawn)
    value = float(by_drawn.mean())
    spread = NORMAL * float(by_drawn.var() / len(drawn) + by_held_out.var() / len(held_out)) ** 0.5
    return Estimate(value, max(value - spread, 0.0), min(value + spread, 1.0), min(len(drawn), len(held_out)))


def _share_farther(distances: Tensor, others: Tensor) -> Tensor:
    """For each of the distances (N,) the share of the others (M,) that is larger, equal ones counting half: (N,)."""
    ordered = others.sort().values
    larger = len(others) - torch.searchsorted(ordered, distances, right=True)
    no_smaller = len(others) - torch.searchsorted(ordered, distances)
    return (larger + no_smaller).double() / (2 * len(others))
