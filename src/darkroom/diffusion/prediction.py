"""What the network predicts, and the way back to x0. No other file knows.

With x = alpha * x0 + sigma * eps:

    epsilon       eps                             DDPM (Ho et al. 2020), eq. 14
    v_prediction  alpha * eps - sigma * x0        progressive distillation (Salimans & Ho 2022), appendix D
    sample        x0

The names are those of diffusers' schedulers.
"""

from typing import assert_never

from torch import Tensor

from darkroom.core.choices import PredictionType
from darkroom.diffusion.schedule import Level


def target(prediction_type: PredictionType, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """What the network should answer at `level`; all tensors (N, C, H, W)."""
    if prediction_type == "epsilon":
        return eps
    if prediction_type == "v_prediction":
        return level.alpha * eps - level.sigma * x0
    if prediction_type == "sample":
        return x0
    assert_never(prediction_type)


def to_x0(prediction_type: PredictionType, output: Tensor, x: Tensor, level: Level) -> Tensor:
    """The x0 that the network's `output` at (x, level) stands for; epsilon needs alpha > 0."""
    if prediction_type == "epsilon":
        return (x - level.sigma * output) / level.alpha
    if prediction_type == "v_prediction":
        return (level.alpha * x - level.sigma * output) / (level.alpha**2 + level.sigma**2)
    if prediction_type == "sample":
        return output
    assert_never(prediction_type)


def loss_scale(prediction_type: PredictionType, snr: Tensor) -> Tensor:
    """How many times the squared error of x0 the squared error of the prediction is, at signal-to-noise ratio `snr`."""
    if prediction_type == "epsilon":
        return snr
    if prediction_type == "v_prediction":
        return snr + 1
    if prediction_type == "sample":
        return snr.new_ones(snr.shape)
    assert_never(prediction_type)
