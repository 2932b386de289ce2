"""Progress of long work: a tqdm bar on a terminal, one line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_EVERY = 5.0  # seconds between lines where the output is no terminal


class Progress:
    """Counts `total` units of work, showing the rate, the time left and current values such as the loss.

    Use as a context manager; `update(n, loss=…)` advances by n.
    """

    def __init__(self, total: int, description: str, unit: str = "step") -> None:
        self.total, self.description, self.unit = total, description, unit
        self.done = 0
        self._first_done = 0
        self._bar: Any = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=description, unit=unit, dynamic_ncols=True)
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self._line({})

    def start_at(self, done: int) -> None:
        """Begin at `done` units: those were finished in an earlier session and do not count for the rate."""
        self.done = self._first_done = done
        if self._bar is not None:
            self._bar.update(done)

    def update(self, n: int = 1, **values: float) -> None:
        """Advance by n units; `values` are shown beside the bar."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
            if values:
                self._bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()}, refresh=False)
        elif time.monotonic() - self._last_line >= LINE_EVERY:
            self._line(values)

    def _line(self, values: dict[str, float]) -> None:
        now = time.monotonic()
        self._last_line = now
        rate = (self.done - self._first_done) / max(now - self._start, 1e-9)
        left = self.total - self.done
        shown = "".join(f"  {k} {v:.4g}" for k, v in values.items())
        eta = f"{left / rate if rate > 0 else float('inf'):.0f} s left" if left > 0 else f"{now - self._start:.0f} s"
        print(
            f"{self.description}: {self.done}/{self.total} {self.unit}s  {rate:.4g}/s  {eta}{shown}",
            file=sys.stderr,
            flush=True,
        )


def track(items: Iterable[T], total: int, description: str, unit: str = "item") -> Iterator[T]:
    """Iterate over `items`, showing progress."""
    with Progress(total, description, unit) as bar:
        for item in items:
            yield item
            bar.update()
