"""Random weights and the measure of agreement for the networks' tests."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from darkroom.core.rng import generator


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def randomise() -> Callable[[nn.Module], None]:
    """Fills every weight with noise of a size that keeps activations near one, zero-initialised ones included."""

    def fill(network: nn.Module) -> None:
        noise = generator(0, "weights")
        for weight in network.parameters():
            fan_in = weight[0].numel() if weight.ndim > 1 else 4
            weight.data = torch.randn(weight.shape, generator=noise) * fan_in**-0.5
            if weight.ndim == 1:
                weight.data += 1

    return fill


@pytest.fixture
def relative_difference() -> Callable[[Tensor, Tensor], float]:
    """Norm of the difference over the norm of the reference."""

    def measure(found: Tensor, expected: Tensor) -> float:
        assert found.shape == expected.shape
        result: float = ((found - expected).norm() / expected.norm()).item()
        return result

    return measure


@pytest.fixture
def epsilons() -> Callable[[nn.Module], dict[str, float]]:
    """Name of each norm -> its epsilon, which activations near one would not tell apart."""

    def read(network: nn.Module) -> dict[str, float]:
        return {n: m.eps for n, m in network.named_modules() if isinstance(m, nn.GroupNorm | nn.LayerNorm)}

    return read
