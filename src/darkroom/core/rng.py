"""Stateless randomness: every random number is a pure function of a seed and of what it is for.

Nothing keeps generator state, so resuming a run restores none, and a picture does not depend on its batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from darkroom.core.seeds import Key, derived

NOISE_ROWS = 16  # rows of a batch whose noise is drawn by one generator


def generator(seed: int, *keys: Key) -> torch.Generator:
    """A fresh CPU generator for (seed, purpose, step, …): equal arguments always give the same stream."""
    return torch.Generator().manual_seed(derived(seed, keys))


def randn_each(shape: tuple[int, ...], seeds: list[int], *keys: Key) -> Tensor:
    """Gaussian noise (len(seeds), *shape), float32 on the CPU; row i depends on seeds[i] and the keys alone."""
    return torch.stack([torch.randn(shape, generator=generator(seed, *keys)) for seed in seeds])


def randn_rows(rows: slice, shape: tuple[int, ...], seed: int, *keys: Key) -> Tensor:
    """Gaussian noise for these rows of a batch, (rows.stop - rows.start, *shape), float32 on the CPU.

    Row i depends on the seed, the keys and i alone, neither on the other rows asked for nor on the size of the batch.
    It is drawn in blocks of NOISE_ROWS rows, for seeding a generator takes longer than drawing a row of it: who needs a
    few rows of a large batch draws little more than those.
    """
    first, end = rows.start // NOISE_ROWS, -(-rows.stop // NOISE_ROWS)
    block = (NOISE_ROWS, *shape)
    noise = torch.cat([torch.randn(block, generator=generator(seed, *keys, i)) for i in range(first, end)])
    return noise[rows.start - first * NOISE_ROWS : rows.stop - first * NOISE_ROWS]


def batch_indices(n: int, batch_size: int, step: int, seed: int, purpose: str = "order") -> Tensor:
    """The samples (batch_size,) int64 of step `step` (from 0) of an endless walk over n samples.

    Every sample is seen once per epoch, in an order reshuffled each epoch; a batch may span two epochs. A pure function
    of its arguments, so that a run can be resumed, or split over processes, without replaying the walk.
    """
    first = step * batch_size
    wanted = torch.arange(first, first + batch_size)
    out = torch.empty(batch_size, dtype=torch.int64)
    for epoch in range(first // n, (first + batch_size - 1) // n + 1):
        here = wanted // n == epoch
        out[here] = _permutation(n, seed, purpose, epoch)[wanted[here] - epoch * n]
    return out


WALKS = 128  # whose orders are remembered
_permutations: dict[tuple[int, int, str], dict[int, Tensor]] = {}


def _permutation(n: int, seed: int, purpose: str, epoch: int) -> Tensor:
    """The order of an epoch, remembered for the last two of its walk: drawing one per step would cost O(n) a step."""
    key = n, seed, purpose
    epochs = _permutations.pop(key, {})
    _permutations[key] = epochs  # the last one asked for stands last
    while len(_permutations) > WALKS:
        _permutations.pop(next(iter(_permutations)))
    if epoch not in epochs:
        while len(epochs) > 1:
            epochs.pop(next(iter(epochs)))
        epochs[epoch] = torch.randperm(n, generator=generator(seed, purpose, epoch))
    return epochs[epoch]


@contextmanager
def seeded(seed: int, *keys: Key) -> Iterator[None]:
    """PyTorch's global CPU generator, which initial weights are drawn from, as a function of (seed, purpose)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived(seed, keys))
        yield
