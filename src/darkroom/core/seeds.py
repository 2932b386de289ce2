"""Seeds that are a pure function of a seed and of what the random numbers are for; see `rng`."""

import hashlib

import numpy as np

Key = str | int


def derived(seed: int, keys: tuple[Key, ...]) -> int:
    """63 bits from (seed, keys); the type of each key is part of it, so 1 and "1" differ."""
    text = repr((seed, *keys)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def numpy_rng(seed: int, *keys: Key) -> np.random.Generator:
    """A fresh NumPy generator for (seed, purpose, …): equal arguments always give the same stream."""
    return np.random.default_rng(derived(seed, keys))
