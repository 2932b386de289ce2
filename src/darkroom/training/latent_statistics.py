"""What is measured of the training latents: the scale that diffusion sees them in, and their mean."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.core.tensors import batches
from darkroom.data.latents import measured_scaling_factor
from darkroom.data.rows import Rows
from darkroom.nn.autoencoder.vae import LOGVAR_RANGE

IN_MEMORY = 2**24  # elements up to which all moments are read and measured at once, in float32
AT_ONCE = 1024  # latents that are read together where there are more


@dataclass(frozen=True)
class LatentStatistics:
    """scaling_factor: see `data.latents.measured_scaling_factor`. mean: of all elements of the posteriors' means."""

    scaling_factor: float
    mean: float


def measure(mean: Rows, logvar: Rows | None) -> LatentStatistics:
    """Of moments (N, c, h, w) each; without logvar, of the least variance there is.

    Of one shape and up to IN_MEMORY elements sums are PyTorch's, in float32 over all of them at once; else in float64
    over AT_ONCE latents after the other, so that memory does not grow with their number. The two agree to about 1e-6.
    """
    tables = [part for _, part in mean.by_shape()]
    logvars_of = [None] * len(tables) if logvar is None else [part for _, part in logvar.by_shape()]
    count = sum(len(part) * math.prod(part.shape) for part in tables)
    if len(tables) == 1 and count <= IN_MEMORY:
        means = mean.in_memory()
        logvars = torch.full_like(means, LOGVAR_RANGE[0]) if logvar is None else logvar.in_memory()
        return LatentStatistics(measured_scaling_factor((means, logvars)), float(means.float().mean()))
    total = squares = variance = 0.0
    for part, logvars_of_part in zip(tables, logvars_of, strict=True):
        for rows in batches(len(part), AT_ONCE):
            means = part[rows].double()
            total += float(means.sum())
            squares += float(means.square().sum())
            variance += float(_variance(logvars_of_part, rows, means).sum())
    average = total / count
    spread = (squares - count * average**2) / (count - 1)
    return LatentStatistics(1 / math.sqrt(max(spread + variance / count, 1e-12)), average)


def _variance(logvar: Rows | None, rows: Tensor, means: Tensor) -> Tensor:
    if logvar is None:
        return torch.full_like(means, math.exp(LOGVAR_RANGE[0]))
    return logvar[rows].double().exp()
