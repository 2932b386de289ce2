"""What all parts of a training share: how much at once, from which seed, how exactly, where."""

from dataclasses import dataclass

import torch

from darkroom.config.base import Precision
from darkroom.training.engine.distributed import ALONE, Processes


@dataclass(frozen=True)
class TrainingContext:
    """batch_size: samples of a whole step, over all its micro-batches and processes. seed: of everything random."""

    batch_size: int
    seed: int
    precision: Precision
    device: torch.device
    processes: Processes = ALONE
