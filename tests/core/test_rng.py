"""Randomness as a pure function of its arguments."""

from typing import Any

import pytest
import torch

from darkroom.core.rng import batch_indices, generator, randn_each, randn_rows, seeded
from darkroom.core.seeds import numpy_rng


def numbers(*keys: str | int) -> list[float]:
    seed, *purpose = keys
    return torch.rand(3, generator=generator(int(seed), *purpose)).tolist()


def test_equal_keys_give_equal_streams_and_no_others_do() -> None:
    assert numbers(0, "noise", 1) == numbers(0, "noise", 1)
    keys: list[tuple[Any, ...]] = [
        (0, "noise", 1),
        (1, "noise", 1),
        (0, "time", 1),
        (0, "noise", 2),
        (0, "noise", "1"),
        (0, "noise"),
        (0,),
    ]
    assert len({tuple(numbers(*k)) for k in keys}) == len(keys)
    drawn = {(*k, tuple(numpy_rng(*k).random(3))) for k in [*keys, *keys]}
    assert len(drawn) == len({numbers for *_, numbers in drawn}) == len(keys)


def test_global_state_neither_matters_nor_changes() -> None:
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), numbers(0, "noise")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert numbers(0, "noise") == first


def test_streams_are_the_same_on_every_machine() -> None:
    assert generator(0, "noise", 1).initial_seed() == 2376061928063757211
    assert generator(2**62, "x").initial_seed() < 2**63


def test_noise_of_a_picture_does_not_depend_on_its_batch() -> None:
    together = randn_each((2, 3), [5, 6, 7], "start")
    assert together.shape == (3, 2, 3)
    assert torch.equal(randn_each((2, 3), [6], "start")[0], together[1])
    assert not torch.equal(randn_each((2, 3), [6], "step")[0], together[1])


def test_noise_of_a_row_depends_neither_on_the_batch_nor_on_the_other_rows() -> None:
    """Catches a world size, or a batch size, that changes what a sample sees."""
    whole = randn_rows(slice(0, 70), (2, 3), 0, "noise", 4)
    assert whole.shape == (70, 2, 3)
    assert len(whole.flatten(1).unique(dim=0)) == 70
    for rows in (slice(0, 1), slice(3, 5), slice(15, 17), slice(16, 48), slice(31, 70), slice(69, 70)):
        assert torch.equal(randn_rows(rows, (2, 3), 0, "noise", 4), whole[rows])
    assert not torch.equal(randn_rows(slice(0, 70), (2, 3), 0, "noise", 5), whole)


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (10, 10), (7, 3), (3, 8), (1, 5)])
def test_a_walk_sees_every_sample_once_an_epoch(n: int, batch: int) -> None:
    walk = torch.cat([batch_indices(n, batch, step, seed=0) for step in range(3 * n)])
    epochs = walk.view(-1)[: (len(walk) // n) * n].view(-1, n)
    assert len(epochs) >= 3
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs.tolist())


def test_each_epoch_has_an_order_of_its_own() -> None:
    first, second = (batch_indices(100, 100, step, seed=0).tolist() for step in (0, 1))
    assert first != second
    assert first != batch_indices(100, 100, 0, seed=1).tolist()
    assert first != batch_indices(100, 100, 0, seed=0, purpose="another").tolist()


def test_a_batch_does_not_depend_on_the_way_to_it() -> None:
    straight = [batch_indices(10, 4, step, seed=3).tolist() for step in range(12)]
    back = [batch_indices(10, 4, step, seed=3).tolist() for step in reversed(range(12))]
    assert straight == back[::-1]


def test_seeded_makes_initial_weights_a_function_of_seed_and_purpose() -> None:
    def weights(seed: int, purpose: str) -> list[float]:
        with seeded(seed, purpose):
            return torch.nn.Linear(3, 1).weight.flatten().tolist()

    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert weights(0, "unet") == weights(0, "unet")
    assert weights(0, "unet") != weights(0, "vae")
    assert weights(0, "unet") != weights(1, "unet")
    assert torch.equal(torch.get_rng_state(), before)
