"""The training objective: which levels are drawn, how errors are measured and weighted, the loss per sample."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from darkroom.config.choices import PredictionType
from darkroom.config.diffusion import (
    EDMWeighting,
    MinSNRWeighting,
    ObjectiveConfig,
    P2Weighting,
    ShiftedTimes,
    UniformWeighting,
)
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.continuous import Flow
from darkroom.diffusion.prediction import loss_scale, target
from darkroom.diffusion.process import Process, check_prediction
from darkroom.diffusion.times import draw_positions


def x0_weight(weighting: MinSNRWeighting | P2Weighting | EDMWeighting, snr: Tensor) -> Tensor:
    """The weight of the squared error of x0 at a signal-to-noise ratio."""
    if isinstance(weighting, MinSNRWeighting):
        return snr.clamp(max=weighting.gamma)
    if isinstance(weighting, P2Weighting):
        return snr / (weighting.k + snr)
    if isinstance(weighting, EDMWeighting):
        return snr + weighting.sigma_data**-2
    assert_never(weighting)


@dataclass(frozen=True)
class Objective:
    """Denoising at levels drawn over the process' training times; the choices are explained in `ObjectiveConfig`.

    Raises:
        DarkroomError: a prediction or a law of times that the process does not allow.
    """

    process: Process
    config: ObjectiveConfig

    def __post_init__(self) -> None:
        check_prediction(self.process, self.prediction_type)
        if isinstance(self.config.times, ShiftedTimes) and not isinstance(self.process, Flow):
            raise DarkroomError("times = 'shifted': is defined on a rectified flow's time; give logit_normal")

    @property
    def prediction_type(self) -> PredictionType:
        """What the network answers; see `prediction`."""
        return self.config.prediction_type

    def weight(self, t: Tensor) -> Tensor:
        """The weight (N,) of the prediction's error at times t (N,)."""
        if isinstance(self.config.weighting, UniformWeighting):
            return torch.ones(t.shape, device=t.device)
        level = self.process.levels(t)
        snr = (torch.as_tensor(level.alpha) / torch.as_tensor(level.sigma)).square()
        return (x0_weight(self.config.weighting, snr) / loss_scale(self.prediction_type, level)).flatten()

    def draw_times(self, n: int, generator: torch.Generator) -> Tensor:
        """n times (n,) of the process; see `times`."""
        return self.process.training_times(draw_positions(self.config.times, n, generator))

    def loss(self, network: Callable[[Tensor, Tensor], Tensor], x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The weighted error per sample (N,).

        Args:
            network: (x, t) -> prediction, shaped like x; the condition is already given to it.
            x0, eps: clean samples and noise, (N, C, H, W).
            t: times (N,), as drawn.
        """
        level = self.process.levels(t)
        x = level.alpha * x0 + level.sigma * eps
        output = network(x, t.float()).float()  # discrete times are integers
        error = output - target(self.prediction_type, x0, eps, level)
        size = error.square() if self.config.loss == "l2" else error.abs()
        total = size.mean(dim=(1, 2, 3)) if self.config.reduction == "mean" else size.sum(dim=(1, 2, 3))
        return self.weight(t) * total
