"""Muon: directions of equal strength, the momentum of the paper, steps as large as AdamW's."""

import pytest
import torch
from torch import nn

from darkroom.core.rng import generator
from darkroom.training.engine.muon import MOMENTUM, RMS, Muon, orthogonalise

ROUNDING = 0.04  # of a few products in bf16
SHAPES = [(16, 16), (16, 24), (24, 16), (16, 80), (80, 16)]


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_close_to_one_and_directions_stay(shape: tuple[int, int]) -> None:
    given = torch.randn(3, *shape, generator=generator(0, "matrices"))
    found = orthogonalise(given)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5
    assert values.max() < 1.3  # the quintic does not settle on 1, and need not (Jordan et al. 2024)
    for before, after in zip(given, found, strict=True):
        u, _, v = torch.linalg.svd(before, full_matrices=False)
        inside = u.mT @ after @ v.mT
        assert (inside - torch.diag(inside.diagonal())).norm() < ROUNDING * inside.norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_bf16_gives_what_the_iteration_gives_in_double_precision(shape: tuple[int, int]) -> None:
    given = torch.randn(2, *shape, generator=generator(1, "matrices"), dtype=torch.float64)
    x = given / (given.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        product = x @ x.mT
        x = 3.4445 * x + (-4.7750 * product + 2.0315 * product @ product) @ x
    assert (orthogonalise(given.float()) - x).norm() < ROUNDING * x.norm()


def test_a_step_has_the_rms_of_adamws_and_follows_nesterovs_momentum() -> None:
    kernel = nn.Parameter(torch.zeros(8, 4, 3, 3))
    optimizer = Muon([kernel], lr=0.5, weight_decay=0.0)
    gradients = torch.randn(2, 8, 4, 3, 3, generator=generator(0, "gradients"))
    momentum, expected = torch.zeros(8, 36), torch.zeros(8, 36)
    for gradient in gradients:
        kernel.grad = gradient.clone()
        optimizer.step()
        flat = gradient.reshape(8, 36)
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * flat
        direction = orthogonalise(((1 - MOMENTUM) * flat + MOMENTUM * momentum)[None])[0]
        expected -= 0.5 * RMS * 6 * direction
    assert torch.allclose(kernel.detach().reshape(8, 36), expected, atol=1e-5)
    assert 0.5 * RMS * 0.6 < expected.square().mean().sqrt() / 2**0.5 < 0.5 * RMS * 1.4


def test_parameters_without_a_gradient_stay() -> None:
    layers = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    layers[0].grad = torch.eye(2)
    Muon(layers, lr=0.1, weight_decay=0.5).step()
    assert not torch.equal(layers[0], torch.ones(2, 2))
    assert torch.equal(layers[1], torch.ones(2, 2))
