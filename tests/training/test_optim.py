"""The optimiser: a rate that is a function of the step, and decay where it belongs."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from darkroom.training.optim import OptimizerConfig, learning_rate, make_optimizer

Make = Callable[..., OptimizerConfig]


def test_the_rate_rises_in_equal_steps_to_its_peak(optimizer: Make) -> None:
    config = optimizer(learning_rate=0.4, warmup_steps=4)
    assert [learning_rate(config, step, 100) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_a_cosine_falls_from_the_peak_to_nothing(optimizer: Make) -> None:
    config = optimizer(learning_rate=0.4, warmup_steps=10, lr_schedule="cosine")
    rates = [learning_rate(config, step, 110) for step in range(10, 111)]
    assert rates[0] == pytest.approx(0.4)
    assert rates[50] == pytest.approx(0.2)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates == sorted(rates, reverse=True)


def test_a_warm_up_as_long_as_the_training_has_no_cosine(optimizer: Make) -> None:
    config = optimizer(learning_rate=0.4, warmup_steps=4, lr_schedule="cosine")
    assert [learning_rate(config, step, 4) for step in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_weights_decay_but_biases_norms_and_scalars_do_not(optimizer: Make) -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2), nn.Linear(2, 2))
    for parameter in network.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(optimizer(learning_rate=0.1, weight_decay=0.5), network.parameters()).step()
    for parameter in network.parameters():
        expected = 1 - 0.1 * 0.5 if parameter.ndim > 1 else 1.0  # Loshchilov & Hutter 2019, algorithm 2
        assert torch.allclose(parameter, torch.full_like(parameter, expected))


def test_frozen_parameters_are_left_out(optimizer: Make) -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    groups = make_optimizer(optimizer(), layer.parameters()).param_groups
    assert sum(len(group["params"]) for group in groups) == 1
