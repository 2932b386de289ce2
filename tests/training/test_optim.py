"""The optimiser: a rate that is a function of the step, and decay where it belongs."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from darkroom.config.training import Optimization
from darkroom.training.engine.optim import learning_rate, make_optimizers

Make = Callable[..., Optimization]


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


def test_an_exponential_decay_falls_in_stairs_to_its_floor(optimizer: Make) -> None:
    """lr * max(0.2, 0.98 ** epoch), at the first and the last step of each epoch."""
    every, epochs = 59, 100
    decay = {"factor": 0.98, "every": every, "floor": 0.2}
    config = optimizer(learning_rate=1e-3, lr_schedule="exponential", **decay)
    total = every * epochs
    for epoch in range(epochs):
        expected = 1e-3 * max(0.2, 0.98**epoch)
        for step in (epoch * every, (epoch + 1) * every - 1):
            assert learning_rate(config, step, total) == pytest.approx(expected, rel=1e-12)
    assert learning_rate(config, total - 1, total) == pytest.approx(2e-4)


def test_a_decay_begins_after_the_warm_up(optimizer: Make) -> None:
    decay = {"factor": 0.5, "every": 2, "floor": 0.0}
    config = optimizer(learning_rate=0.4, warmup_steps=2, lr_schedule="exponential", **decay)
    assert [learning_rate(config, step, 9) for step in range(7)] == pytest.approx([0.2, 0.4, 0.4, 0.4, 0.2, 0.2, 0.1])


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weights_decay_but_biases_norms_and_scalars_do_not(optimizer: Make, name: str) -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2), nn.Linear(2, 2), nn.LayerNorm((2, 3, 3)))
    norms = [*network[1].parameters(), *network[3].parameters()]
    for parameter in network.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    for one in make_optimizers(optimizer(optimizer=name, learning_rate=0.1, weight_decay=0.5).optimizer, network):
        one.step()
    for parameter in network.parameters():
        decays = parameter.ndim > 1 and not any(parameter is norm for norm in norms)
        expected = 1 - 0.1 * 0.5 if decays else 1.0  # Loshchilov & Hutter 2019, algorithm 2
        assert torch.allclose(parameter, torch.full_like(parameter, expected))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_each_parameter_is_moved_by_one_optimiser_and_frozen_ones_by_none(optimizer: Make, name: str) -> None:
    network = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2), nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2))
    frozen = network[1].bias
    frozen.requires_grad_(False)
    optimizers = make_optimizers(optimizer(optimizer=name).optimizer, network)
    moved = [id(p) for one in optimizers for group in one.param_groups for p in group["params"]]
    assert sorted(moved) == sorted(id(p) for p in network.parameters() if p is not frozen)


def test_muon_takes_matrices_and_kernels_but_no_tables_biases_and_norms(optimizer: Make) -> None:
    network = nn.Sequential(
        nn.Embedding(3, 2), nn.Linear(2, 2), nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2), nn.LayerNorm((2, 3, 3))
    )
    muon = make_optimizers(optimizer(optimizer="muon").optimizer, network)[1]
    taken = [p for group in muon.param_groups for p in group["params"]]
    assert [id(p) for p in taken] == [id(network[1].weight), id(network[2].weight)]
