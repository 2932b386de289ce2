"""Networks that are counted before they are made."""

from pathlib import Path

import pytest
import torch
from torch import nn

from darkroom.core.errors import DarkroomError
from darkroom.core.weights import outline

PLACE = Path("unet/config.json")


class Endless(nn.Module):
    """Would never be made to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        while True:
            self.layers.append(nn.Linear(4, 4))


def test_a_network_is_given_up_at_the_first_tensor_too_many() -> None:
    """Catches: a count that is taken when the network is there."""
    with pytest.raises(DarkroomError, match=r"^unet/config\.json: describes a network of more than 10 tensors; give"):
        outline(Endless, PLACE, tensors=10)
    with pytest.raises(DarkroomError, match="of more than 100 weights"):
        outline(Endless, PLACE, weights=100)
    with pytest.raises(DarkroomError, match="of more than 4,000,000,000 weights; give another"):
        outline(lambda: nn.Linear(10**6, 10**6), PLACE, remedy="give another")


def test_a_network_within_limits_takes_no_memory_and_leaves_nothing_behind() -> None:
    """Catches: a count that goes on after it, or memory for weights that are replaced anyway."""
    network = outline(lambda: nn.Linear(4, 4), PLACE, tensors=2, weights=20)
    assert network.weight.device == torch.device("meta")
    assert sum(p.numel() for p in nn.Linear(100, 100).parameters()) == 10_100


def test_shapes_that_no_layer_has_are_refused() -> None:
    """Catches: a traceback of PyTorch for a negative width."""
    for make in (lambda: nn.Linear(-1, 4), lambda: nn.GroupNorm(0, 4), lambda: nn.Linear(2**40, 2**40)):
        with pytest.raises(DarkroomError, match=r"^unet/config\.json: describes (no|a) network"):
            outline(make, PLACE)
