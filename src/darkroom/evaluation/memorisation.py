"""Are generated pictures copies of training pictures?"""

import numpy as np
import torch
from torch import Tensor

from darkroom.evaluation.distances import nearest
from darkroom.evaluation.estimates import Estimate, bootstrap_mean


def closeness_to_training(
    generated: Tensor, test: Tensor, train: Tensor, resamples: int, rng: np.random.Generator
) -> Estimate:
    """The probability that a generated picture lies closer to the training pictures than a real test picture does.

    The Mann-Whitney statistic of the distances to the nearest training feature (Meehan et al. 2020, "A non-parametric
    test to detect data-copying", section 3). 0.5: no closer than new real pictures; 1: copies; below 0.5: farther than
    real pictures are. The interval is a bootstrap over the generated pictures.

    Args:
        generated, test, train: features (N, F), (M, F), (T, F).
    """
    drawn, held_out = nearest(generated, train), nearest(test, train).sort().values
    farther = len(held_out) - torch.searchsorted(held_out, drawn, right=True)
    no_closer = len(held_out) - torch.searchsorted(held_out, drawn)
    share = (farther + no_closer) / (2 * len(held_out))  # ties count half
    return bootstrap_mean(share.double().numpy(), resamples, rng)
