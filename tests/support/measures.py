"""The types of what tests/nn/conftest.py gives: how weights are filled and how outputs are compared."""

from collections.abc import Callable

from torch import Tensor, nn

Randomise = Callable[[nn.Module], None]
Difference = Callable[[Tensor, Tensor], float]
Epsilons = Callable[[nn.Module], dict[str, float]]
