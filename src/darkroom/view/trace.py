"""What is kept of a walk from noise to a picture, to be looked at afterwards."""

from collections.abc import Iterator, Sequence

from torch import Tensor


def evenly(n: int, most: int) -> list[int]:
    """Of 0 … n - 1 at most `most`, evenly spread, both ends among them; most: 2 or more."""
    return list(range(n)) if n <= most else [round(i * (n - 1) / (most - 1)) for i in range(most)]


class Trace:
    """Watches a walk; state 0 is where it begins, state k what step k (from 1) has led to.

    Args:
        states: which ones to keep.
        rows: how many samples of the batch to keep, the first ones.
    """

    def __init__(self, states: Sequence[int], rows: int) -> None:
        self.states, self.rows = frozenset(states), rows
        self._reached: dict[int, Tensor] = {}
        self._expected: dict[int, Tensor] = {}

    def start(self, x: Tensor) -> None:
        """Keep the beginning (N, …), if it is asked for."""
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
