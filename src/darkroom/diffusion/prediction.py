"""What the network predicts, and the way back to x0: the only file that computes with it.

With x = alpha * x0 + sigma * eps:

    epsilon          eps                        DDPM (Ho et al. 2020), eq. 14
    v_prediction     alpha * eps - sigma * x0   progressive distillation (Salimans & Ho 2022), appendix D
    sample           x0
    score            -eps                       sigma times the score, grad log p(x) (Song et al. 2021)
    flow_prediction  eps - x0                   rectified flow (Liu et al. 2022), eq. 1, from the picture to the noise

The score is predicted as sigma * score, which is of one size at every level: published networks that divide their
output by sigma themselves are such networks without the division. The other names are those of diffusers' schedulers.
"""

from typing import assert_never

import torch
from torch import Tensor

from darkroom.config.choices import PredictionType
from darkroom.diffusion.schedule import Level


def target(prediction_type: PredictionType, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """What the network should answer at `level`; all tensors (N, C, H, W)."""
    if prediction_type == "epsilon":
        return eps
    if prediction_type == "v_prediction":
        return level.alpha * eps - level.sigma * x0
    if prediction_type == "sample":
        return x0
    if prediction_type == "score":
        return -eps
    if prediction_type == "flow_prediction":
        return eps - x0
    assert_never(prediction_type)


def to_x0(prediction_type: PredictionType, output: Tensor, x: Tensor, level: Level) -> Tensor:
    """The x0 that the network's `output` at (x, level) stands for; epsilon and score need alpha > 0."""
    if prediction_type == "epsilon":
        return (x - level.sigma * output) / level.alpha
    if prediction_type == "v_prediction":
        return (level.alpha * x - level.sigma * output) / (level.alpha**2 + level.sigma**2)
    if prediction_type == "sample":
        return output
    if prediction_type == "score":
        return (x + level.sigma * output) / level.alpha
    if prediction_type == "flow_prediction":
        return (x - level.sigma * output) / (level.alpha + level.sigma)
    assert_never(prediction_type)


def loss_scale(prediction_type: PredictionType, level: Level) -> Tensor:
    """(error of the prediction)^2 / (error of x0)^2 at a level, shaped like its alpha."""
    alpha, sigma = torch.as_tensor(level.alpha), torch.as_tensor(level.sigma)
    snr = (alpha / sigma).square()
    if prediction_type == "epsilon" or prediction_type == "score":
        return snr
    if prediction_type == "v_prediction":
        return (alpha.square() + sigma.square()) * (snr + 1)
    if prediction_type == "sample":
        return torch.ones_like(snr)
    if prediction_type == "flow_prediction":
        return (1 + alpha / sigma).square()
    assert_never(prediction_type)
