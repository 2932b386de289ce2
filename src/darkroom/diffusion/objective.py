"""The training objective: which levels are drawn, how errors are measured and weighted, the loss per sample."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.config.choices import LossName, PredictionType, Reduction, Weighting
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.prediction import loss_scale, target
from darkroom.diffusion.process import Process, check_prediction

MIN_SNR_GAMMA = 5.0  # the value Hang et al. 2023 recommend
P2_K = 1.0  # Choi et al. 2022, with their gamma of 1
EDM_SIGMA_DATA = 0.5  # Karras et al. 2022, table 1

# What the squared error of x0 is weighed by at a signal-to-noise ratio, where it is weighed.
X0_WEIGHTS: dict[Weighting, Callable[[Tensor], Tensor]] = {
    "min_snr": lambda snr: snr.clamp(max=MIN_SNR_GAMMA),
    "p2": lambda snr: snr / (P2_K + snr),
    "edm": lambda snr: snr + EDM_SIGMA_DATA**-2,
}


@dataclass(frozen=True)
class Objective:
    """Denoising at levels drawn uniformly over the process' training times.

    prediction_type: see `prediction`.
    weighting: "uniform" weighs the error of the prediction itself by 1 at every level. The others say how the squared
        error of x0 is weighed, whatever is predicted, with SNR = (alpha / sigma)^2:
        "min_snr"  min(SNR, 5)         Hang et al. 2023, "Efficient diffusion training via min-SNR weighting", eq. 8
        "p2"       SNR / (1 + SNR)     Choi et al. 2022, "Perception prioritized training", with k = gamma = 1
        "edm"      SNR + 1 / 0.5^2     Karras et al. 2022, table 1: (s^2 + 0.5^2) / (0.5 s)^2 with s = sigma / alpha
    loss: "l2", the squared error, or "l1", its absolute value.
    reduction: "mean" or "sum" over the elements of a sample.

    Raises:
        DarkroomError: a weighting of absolute errors, or a prediction that the process does not allow.
    """

    schedule: Process
    prediction_type: PredictionType
    weighting: Weighting
    loss_name: LossName
    reduction: Reduction

    def __post_init__(self) -> None:
        if self.weighting != "uniform" and self.loss_name != "l2":
            raise DarkroomError(
                f"weighting = {self.weighting!r}: weighs squared errors, but loss = {self.loss_name!r}; give l2, or "
                "weighting = 'uniform'"
            )
        check_prediction(self.schedule, self.prediction_type)

    def weight(self, t: Tensor) -> Tensor:
        """The weight (N,) of the prediction's error at times t (N,)."""
        if self.weighting == "uniform":
            return torch.ones(t.shape, device=t.device)
        level = self.schedule.at(t)
        snr = (torch.as_tensor(level.alpha) / torch.as_tensor(level.sigma)).square()
        return (X0_WEIGHTS[self.weighting](snr) / loss_scale(self.prediction_type, level)).flatten()

    def draw_times(self, n: int, generator: torch.Generator) -> Tensor:
        """n times, stratified: one from each n-th of the training times, in random order, to cover the levels evenly.

        Each sample's time is uniform, as in DDPM's algorithm 1; only the variance of the batch is lower (variational
        diffusion models, Kingma et al. 2021, appendix I.1).
        """
        position = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
        return self.schedule.training_times(position)

    def loss(self, network: Callable[[Tensor, Tensor], Tensor], x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The weighted error per sample (N,).

        Args:
            network: (x, t) -> prediction, shaped like x; the condition is already given to it.
            x0, eps: clean samples and noise, (N, C, H, W).
            t: times (N,), as drawn.
        """
        level = self.schedule.at(t)
        x = level.alpha * x0 + level.sigma * eps
        error = network(x, t.float()).float() - target(self.prediction_type, x0, eps, level)
        size = error.square() if self.loss_name == "l2" else error.abs()
        total = size.mean(dim=(1, 2, 3)) if self.reduction == "mean" else size.sum(dim=(1, 2, 3))
        return self.weight(t) * total
