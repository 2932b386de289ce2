"""The training objective: which levels are drawn, how errors are weighted, the loss per sample."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.core.choices import PredictionType, Weighting
from darkroom.diffusion.prediction import loss_scale, target
from darkroom.diffusion.schedule import DiscreteVP

MIN_SNR_GAMMA = 5.0  # the value Hang et al. 2023 recommend


@dataclass(frozen=True)
class Objective:
    """Denoising at levels drawn uniformly over the discrete times.

    prediction_type: "epsilon", "v_prediction" or "sample".
    weighting: "uniform" weighs the squared error of the prediction itself by 1 at every level; "min_snr" weighs that of
        x0 by min(SNR, 5) (Hang et al. 2023, "Efficient diffusion training via min-SNR weighting", eq. 8 and its forms
        for the other predictions).
    """

    schedule: DiscreteVP
    prediction_type: PredictionType
    weighting: Weighting

    def weight(self, t: Tensor) -> Tensor:
        """The weight (N,) of the prediction's squared error at times t (N,)."""
        if self.weighting == "uniform":
            return torch.ones(t.shape, device=t.device)
        level = self.schedule.at(t)
        snr = (torch.as_tensor(level.alpha) / torch.as_tensor(level.sigma)).square().flatten()
        return snr.clamp(max=MIN_SNR_GAMMA) / loss_scale(self.prediction_type, snr)

    def draw_times(self, n: int, generator: torch.Generator) -> Tensor:
        """n times, stratified: one from each n-th of [0, T), in random order; so a batch covers the levels evenly.

        Each sample's time is uniform over [0, T), as in DDPM's algorithm 1; only the variance of the batch is lower
        (variational diffusion models, Kingma et al. 2021, appendix I.1).
        """
        position = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
        return (position * self.schedule.num_train_timesteps).long().clamp(max=self.schedule.num_train_timesteps - 1)

    def loss(self, network: Callable[[Tensor, Tensor], Tensor], x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The weighted squared error per sample (N,), averaged over its elements.

        Args:
            network: (x, t) -> prediction, shaped like x; the condition is already given to it.
            x0, eps: clean samples and noise, (N, C, H, W).
            t: discrete times (N,) int64.
        """
        level = self.schedule.at(t)
        x = level.alpha * x0 + level.sigma * eps
        error = network(x, t.float()).float() - target(self.prediction_type, x0, eps, level)
        return self.weight(t) * error.square().mean(dim=(1, 2, 3))
