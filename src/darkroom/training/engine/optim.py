"""AdamW or Muon, with a learning rate that is a pure function of the step."""

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import nn

from darkroom.config.choices import OptimizerName
from darkroom.training.engine.muon import Muon


class LRDecay(Protocol):
    """How a rate falls in stairs.

    factor: of each decay. every: steps between two. floor: share of the peak rate that stays.
    """

    @property
    def factor(self) -> float: ...
    @property
    def every(self) -> int: ...
    @property
    def floor(self) -> float: ...


class OptimizerConfig(Protocol):
    """The optimiser and its schedule, as a section of the parameters describes them.

    optimizer: "adamw" (Loshchilov & Hutter 2019), or "muon" for the matrices and kernels, with AdamW for the rest.
    learning_rate: the peak rate, of both.
    betas: of AdamW.
    lr_schedule: after `warmup_steps` of linear rise, "constant", "cosine" down to zero at the last step, or
        "exponential" in the stairs of `lr_decay`, which is None for the others.
    clip_norm: the gradient's largest norm, or None.
    """

    @property
    def optimizer(self) -> OptimizerName: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def betas(self) -> Sequence[float]: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def lr_schedule(self) -> Literal["constant", "cosine", "exponential"]: ...
    @property
    def lr_decay(self) -> LRDecay | None: ...
    @property
    def clip_norm(self) -> float | None: ...


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The learning rate of step `step` (from 0) of `total_steps`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.learning_rate
    if config.lr_decay is not None:
        decays = (step - config.warmup_steps) // config.lr_decay.every
        return config.learning_rate * max(config.lr_decay.floor, config.lr_decay.factor**decays)
    done = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizers(config: OptimizerConfig, network: nn.Module) -> list[torch.optim.Optimizer]:
    """What moves the parameters of `network` that are not frozen.

    Weight decay acts on matrices and kernels, not on biases, norms (of whole feature maps too) and scalars. Muon takes
    matrices and kernels too, but no tables of embeddings, where each row is a thing of its own.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    norms = {id(p) for m in network.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    matrices = [p for p in parameters if p.ndim > 1 and id(p) not in norms]
    hidden = [p for p in matrices if config.optimizer == "muon" and id(p) not in tables]
    others = {id(p) for p in parameters} - {id(p) for p in matrices}
    taken = {id(p) for p in hidden}
    first, second = config.betas
    groups = [
        {"params": [p for p in matrices if id(p) not in taken], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) in others], "weight_decay": 0.0},
    ]
    on_cuda = any(p.device.type == "cuda" for p in parameters)
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(first, second), fused=True, capturable=on_cuda)
    adamw._warned_capturable_if_run_uncaptured = True  # its first steps are, on purpose
    return [adamw, Muon(hidden, config.learning_rate, config.weight_decay)] if hidden else [adamw]
