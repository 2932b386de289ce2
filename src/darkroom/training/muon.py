"""Muon: momentum whose direction is made orthogonal before it moves a matrix (Jordan et al. 2024).

Adam rescales each weight by itself; Muon rescales whole directions, so that those a gradient barely touches move as far
as the rest. A small denoiser needs some two thirds of Adam's samples for the same held-out loss.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic; chosen by Jordan et al. to be steep at zero
RMS = 0.2  # of an update's entries, what AdamW's usually are (Liu et al. 2025, "Muon is scalable for LLM training")
EPSILON = 1e-7


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices (B, m, n) with all singular values moved close to 1, by a Newton-Schulz iteration.

    Far from square, the iteration runs on the products X X^T (m, m) alone and X is multiplied once.
    """
    x = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + EPSILON)
    x = _on_products(x) if x.shape[2] >= 2 * x.shape[1] else _on_matrices(x)
    return x.mT if matrices.shape[1] > matrices.shape[2] else x


def _on_matrices(x: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        product = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(product, product, product, beta=b, alpha=c), x, beta=a)
    return x


def _on_products(x: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    product, identity = x @ x.mT, torch.eye(x.shape[1], device=x.device)
    factor = identity.expand(len(x), -1, -1)
    for _ in range(ITERATIONS):
        step = torch.baddbmm(b * product + a * identity, product, product, alpha=c)
        factor, product = step @ factor, step @ product @ step
    return factor @ x


class Muon(torch.optim.Optimizer):
    """Muon over matrices and convolution kernels, these as (output channels, the rest).

    PyTorch's own takes matrices only. The learning rate and decay are AdamW's: an update is scaled to the RMS that
    AdamW's has, whatever the shape.

    Args:
        parameters: of two or more dimensions.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move the parameters that have a gradient; those of equal shape are orthogonalised together."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape[0], parameter[0].numel()].append(parameter)
            for shape, parameters in alike.items():
                updates = orthogonalise(torch.stack([self._direction(p).reshape(shape) for p in parameters]))
                rate = group["lr"] * RMS * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update.reshape(parameter.shape), alpha=rate)
        return loss

    def _direction(self, parameter: nn.Parameter) -> Tensor:
        """Nesterov's momentum."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(momentum, MOMENTUM)
