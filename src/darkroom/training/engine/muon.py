"""Muon: momentum whose direction is made orthogonal before it moves a matrix (Jordan et al. 2024).

Adam rescales each weight by itself; Muon rescales whole directions, so that those a gradient barely touches move as far
as the rest. A small denoiser needs some two thirds of Adam's samples for the same held-out loss.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor, nn

from darkroom.training.engine.latch import exact

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic; chosen by Jordan et al. to be steep at zero
RMS = 0.2  # of an update's entries, what AdamW's usually are (Liu et al. 2025, "Muon is scalable for LLM training")
EPSILON = 1e-7


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices (B, m, n) with all singular values moved close to 1, by a Newton-Schulz iteration in bf16."""
    a, b, c = COEFFICIENTS
    x = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + EPSILON)).bfloat16()
    for _ in range(ITERATIONS):
        product = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(product, product, product, beta=b, alpha=c), x, beta=a)
    return (x.mT if matrices.shape[1] > matrices.shape[2] else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Muon over matrices and convolution kernels, these as (output channels, the rest).

    PyTorch's own takes matrices only. The learning rate and decay are AdamW's: an update is scaled to the RMS that
    AdamW's has, whatever the shape.

    found_inf: 1 where nothing is to move, a tensor, as PyTorch's fused optimisers have it; None: 0.

    Args:
        parameters: of two or more dimensions.
    """

    found_inf: Tensor | None = None

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
            parameters = [p for p in group["params"] if p.grad is not None]
            alike: dict[tuple[int, int], list[int]] = defaultdict(list)
            for i, parameter in enumerate(parameters):
                alike[parameter.shape[0], parameter[0].numel()].append(i)
            directions = self._directions(parameters)
            for shape, members in alike.items():
                updates = orthogonalise(torch.stack([directions[i].reshape(shape) for i in members]))
                rate = group["lr"] if self.found_inf is None else group["lr"] * _open(self.found_inf)
                updates *= rate * RMS * max(shape) ** 0.5
                moved = [parameters[i] for i in members]
                torch._foreach_mul_(moved, 1 - rate * group["weight_decay"])
                torch._foreach_sub_(moved, [u.reshape(p.shape) for p, u in zip(moved, updates, strict=True)])
        return loss

    def _directions(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        """Nesterov's momentum of each parameter's gradient."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.found_inf is not None:  # of a gradient that equals its momentum, the momentum stays what it is
            pairs = zip(momenta, gradients, strict=True)
            gradients = [torch.where(self.found_inf > 0, momentum, gradient) for momentum, gradient in pairs]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        return list(torch._foreach_lerp(gradients, momenta, MOMENTUM))


def _open(found_inf: Tensor) -> Tensor:
    """1, or 0 where nothing is to move; in the width of Python's numbers where the device has it."""
    return 1 - found_inf.to(exact(found_inf.device))
