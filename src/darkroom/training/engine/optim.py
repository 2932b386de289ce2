"""AdamW or Muon, with a learning rate that is a pure function of the step."""

import math

import torch
from torch import nn

from darkroom.config.training import AdamW, Constant, Exponential, Muon, Optimization
from darkroom.training.engine.muon import Muon as MuonOptimizer


def learning_rate(config: Optimization, step: int, total_steps: int) -> float:
    """The learning rate of step `step` (from 0) of `total_steps`."""
    peak, schedule = config.optimizer.learning_rate, config.lr_schedule
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    since = step - schedule.warmup_steps
    if isinstance(schedule, Constant):
        return peak
    if isinstance(schedule, Exponential):
        return peak * max(schedule.floor, schedule.factor ** (since // schedule.every))
    done = since / max(total_steps - schedule.warmup_steps, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizers(config: AdamW | Muon, network: nn.Module) -> list[torch.optim.Optimizer]:
    """What moves the parameters of `network` that are not frozen.

    Weight decay acts on matrices and kernels, not on biases, norms (of whole feature maps too) and scalars. Muon takes
    matrices and kernels too, but no tables of embeddings, where each row is a thing of its own.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    norms = {id(p) for m in network.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    matrices = [p for p in parameters if p.ndim > 1 and id(p) not in norms]
    hidden = [p for p in matrices if isinstance(config, Muon) and id(p) not in tables]
    decayed = {id(p) for p in matrices}
    taken = {id(p) for p in hidden}
    first, second = config.betas
    groups = [
        {"params": [p for p in matrices if id(p) not in taken], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    on_cuda = any(p.device.type == "cuda" for p in parameters)
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(first, second), fused=True, capturable=on_cuda)
    adamw._warned_capturable_if_run_uncaptured = True  # its first steps are, on purpose
    return [adamw, MuonOptimizer(hidden, config.learning_rate, config.weight_decay)] if hidden else [adamw]
