"""Whether and how networks are compiled for training."""

import logging
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from darkroom.core.device import Compile
from darkroom.nn.layers.attention import BasicTransformerBlock
from darkroom.nn.layers.blocks import ResnetBlock2D

WORTH_FROM = 3000  # steps of a training from which the minutes that compiling may cost come back
SHAPES = 2048  # of inputs that a block may be compiled for: every level of a U-Net has some of its own in each bucket
BLOCKS = (ResnetBlock2D, BasicTransformerBlock)
log = logging.getLogger("darkroom")


def decided(wanted: Compile, device_type: str, steps: int) -> bool:
    """Whether a training of `steps` steps is compiled; a function of what its run records, since bits depend on it."""
    return device_type == "cuda" and (wanted == "always" or (wanted == "auto" and steps >= WORTH_FROM))


def compile_networks(networks: Sequence[nn.Module], wanted: Compile, steps: int) -> None:
    """Compile the blocks of each network on CUDA where that is wanted; its weights keep their names.

    Block by block, since those of one shape share what was compiled: Stable Diffusion's U-Net as a whole takes over
    two and a half minutes (an H100); diffusers' `compile_repeated_blocks` exists for the same reason.
    """
    for network in networks:
        if not decided(wanted, next(network.parameters()).device.type, steps):
            continue
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = SHAPES
        blocks = list(_blocks(network))
        log.warning("%s: %d blocks are compiled in the first steps", type(network).__name__, len(blocks))
        for block in blocks:
            block.compile(dynamic=False)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    found: list[nn.Module] = [module for module in network.modules() if isinstance(module, BLOCKS)]
    yield from found or [network]
