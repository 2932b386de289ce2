"""Whether and how networks are compiled for training."""

from collections.abc import Sequence

from torch import nn

from darkroom.core.choices import Compile

WORTH_FROM = 3000  # steps of a training from which the two minutes that compiling may cost come back


def decided(wanted: Compile, device_type: str, steps: int) -> bool:
    """Whether a training of `steps` steps is compiled; a function of what its run records, since bits depend on it."""
    return device_type == "cuda" and (wanted == "always" or (wanted == "auto" and steps >= WORTH_FROM))


def compile_networks(networks: Sequence[nn.Module], wanted: Compile, steps: int) -> None:
    """Compile each network on CUDA where that is wanted; its weights keep their names."""
    for network in networks:
        if decided(wanted, next(network.parameters()).device.type, steps):
            network.compile(dynamic=False)
