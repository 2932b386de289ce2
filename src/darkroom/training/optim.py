"""AdamW with a learning rate that is a pure function of the step."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import torch
from torch import nn


class OptimizerConfig(Protocol):
    """AdamW (Loshchilov & Hutter 2019) and its schedule, as a section of the parameters describes them.

    learning_rate: the peak rate.
    lr_schedule: after `warmup_steps` of linear rise, "constant", or "cosine" down to zero at the last step.
    clip_norm: the gradient's largest norm, or None.
    """

    @property
    def learning_rate(self) -> float: ...
    @property
    def betas(self) -> Sequence[float]: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def lr_schedule(self) -> Literal["constant", "cosine"]: ...
    @property
    def clip_norm(self) -> float | None: ...


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The learning rate of step `step` (from 0) of `total_steps`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW over `parameters`; weight decay acts on matrices and kernels, not on biases, norms and scalars."""
    parameters = [p for p in parameters if p.requires_grad]
    first, second = config.betas
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(first, second), fused=True)
