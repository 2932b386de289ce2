"""What is kept of the way from noise to a picture, to be looked at afterwards."""

import math
from collections.abc import Iterator, Sequence

from torch import Tensor


def contrast(alpha: float, sigma: float) -> float:
    """The factor that brings a noisy picture alpha * x0 + sigma * eps into the visible range.

    That is 1 where it has the spread of pictures, as variance-preserving processes leave it; beyond, where it would be
    black and white alone, it is 1 / sqrt(alpha^2 + sigma^2).
    """
    return 1 / max(1.0, math.hypot(alpha, sigma))


def visible(x: Tensor, alpha: float, sigma: float, centre: float = 0.0) -> Tensor:
    """Noisy x with `contrast`, about `centre`, which stays where it is; same shape."""
    return centre + contrast(alpha, sigma) * (x - centre)


def evenly(n: int, most: int) -> list[int]:
    """At most `most` of 0 … n - 1, evenly spread, both ends included; most: 2 or more."""
    return list(range(n)) if n <= most else [round(i * (n - 1) / (most - 1)) for i in range(most)]


class Trace:
    """Watches a batch being sampled; state 0 is the initial noise, state k what step k (from 1) has led to.

    Args:
        states: which ones to keep.
        rows: how many samples of the batch to keep, the first ones.
    """

    def __init__(self, states: Sequence[int], rows: int) -> None:
        self.states, self.rows = frozenset(states), rows
        self._reached: dict[int, Tensor] = {}
        self._expected: dict[int, Tensor] = {}

    def start(self, x: Tensor) -> None:
        """Keep the initial noise (N, …), if state 0 is kept."""
        self._keep(self._reached, 0, x)

    def watch(self, step: int, x: Tensor, x0: Tensor) -> None:
        """Keep what a step leads to and what it was based on; give it as `on_step`."""
        self._keep(self._expected, step, x0)
        self._keep(self._reached, step + 1, x)

    def _keep(self, kept: dict[int, Tensor], state: int, x: Tensor) -> None:
        if state in self.states:
            kept[state] = x[: self.rows].cpu()

    def __iter__(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(state, x, the x0 expected there), in order; at the end that is x itself."""
        for state, x in sorted(self._reached.items()):
            yield state, x, self._expected.get(state, x)
