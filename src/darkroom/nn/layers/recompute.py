"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): blocks that are computed again in the backward pass.

Between the passes only the inputs of a block stay in memory, not what it computed on the way. The same kernels compute
the same numbers twice, so gradients are the same to the bit; a step takes about a third more time.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputing(nn.Module):
    """A module that can compute its blocks again; see `checkpoint_activations`."""

    recomputes = False

    def computed(self, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """block(*inputs), which is computed again in the backward pass where that is asked for and there will be one.

        The block must draw no random numbers: the generators' states are neither kept nor brought back, because that
        would wait for the device and could not be captured in a CUDA graph.
        """
        if not (self.recomputes and self.training and torch.is_grad_enabled()):
            return block(*inputs)
        out: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return out


def checkpoint_activations(network: nn.Module, wanted: bool) -> None:
    """Let every `Recomputing` part of a network compute its blocks again in training, or no longer."""
    for module in network.modules():
        if isinstance(module, Recomputing):
            module.recomputes = wanted
