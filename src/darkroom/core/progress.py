"""Progress of long work: a tqdm bar on a terminal, one line every few seconds elsewhere. For eyes only."""

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise
from types import TracebackType
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_EVERY = 5.0  # seconds between lines where the output is not a terminal
REDRAW_EVERY = 0.1  # seconds on a terminal
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}s{postfix}"
WINDOW, WINDOW_SHARE = 60.0, 0.5  # the mean is over the latest minute, or half of the time so far where that is more
SPANS = 100  # into which the window is divided, at least a second each
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
STOP_FROM = 5.0  # seconds: a stop is longer,
STOP_TIMES = 10  # takes as many times as long as an update does,
STOP_BUSY = 0.1  # and the processor is busy for a smaller share of it


class Outlook(Protocol):
    """Who knows what comes after the work that is shown."""

    def in_all(self, left: float | None, training: bool) -> str:
        """How long everything takes from here on, as text, where the work itself has `left` seconds to go."""
        ...

    def trained(self, steps: int, seconds: float) -> None:
        """A training is through: how many steps of it this process has made, in how many seconds."""
        ...

    def stopped(self, seconds: float) -> None:
        """For so long the process did not run, and seconds that others count are too many."""
        ...


class Ahead:
    """Who is asked for the outlook: one in a process, or nobody."""

    outlook: Outlook | None = None


class Pace:
    """Units a second: a moving mean without the first update, which compiles and warms up, and without stops.

    A process stopped by a signal, or a machine put to sleep, does nothing meanwhile: that time says nothing of the
    work, and `active` leaves it out.
    """

    def __init__(self) -> None:
        self.active = 0.0  # seconds
        self._wall, self._busy = time.monotonic(), time.process_time()
        self._spans: deque[list[float]] = deque()  # [units, seconds], oldest first
        self._units = self._seconds = 0.0  # sums of the spans
        self._updates = 0

    def update(self, n: int) -> float:
        """Count n units done now; how long the process did not run since the last update, mostly 0.0."""
        wall, busy = time.monotonic(), time.process_time()
        passed, worked = wall - self._wall, busy - self._busy
        self._wall, self._busy = wall, busy
        self._updates += 1
        if self._is_stop(passed, worked):
            return passed
        self.active += passed
        if self._updates > 1:
            self._take(n, passed)
        return 0.0

    @property
    def rate(self) -> float | None:
        """Units a second; None where that is not known yet."""
        return self._units / self._seconds if self._seconds > 0 and self._units > 0 else None

    def _is_stop(self, passed: float, worked: float) -> bool:
        usual = self.active / (self._updates - 1) if self._updates > 1 else float("inf")
        return passed > max(STOP_FROM, STOP_TIMES * usual) and worked < STOP_BUSY * passed

    def _take(self, units: float, seconds: float) -> None:
        window = max(WINDOW, WINDOW_SHARE * self.active)
        if not self._spans or self._spans[-1][1] > max(window / SPANS, 1.0):
            self._spans.append([0.0, 0.0])
        self._spans[-1][0] += units
        self._spans[-1][1] += seconds
        self._units, self._seconds = self._units + units, self._seconds + seconds
        while len(self._spans) > 1 and self._seconds - self._spans[0][1] >= window:
            units, seconds = self._spans.popleft()
            self._units, self._seconds = self._units - units, self._seconds - seconds


class Silence:
    """Of a process that works for another, which speaks for it."""

    kept = False


class Progress:
    """Counts `total` units of work, showing the rate, the time left and current values such as the loss.

    Use as a context manager; `update(n, loss=…)` advances by n. `total` may be changed on the way.

    Args:
        training: this is the training of a stage, on which the outlook on all stages rests.
        after: seconds of silence at the beginning, for work that is often over soon.
    """

    def __init__(
        self, total: int, description: str, unit: str = "step", training: bool = False, after: float = 0.0
    ) -> None:
        self.total, self.description, self.unit, self.training = total, description, unit, training
        self.done = 0
        self._first_done = 0
        self._pace = Pace()
        self._speaks_from = float("inf") if Silence.kept else time.monotonic() + after
        self._last_shown = time.monotonic() - (LINE_EVERY if after else 0)
        self._terminal = sys.stderr.isatty()
        self._bar: Any = None
        if not after and not Silence.kept:
            self._open_bar()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._show({})
            self._bar.close()
        elif kind is None and not self._terminal and time.monotonic() >= self._speaks_from:
            self._show({})
        if self.training and kind is None and Ahead.outlook is not None:
            Ahead.outlook.trained(self.done - self._first_done, self._pace.active)

    def start_at(self, done: int) -> None:
        """Begin at `done` units: those were finished in an earlier session and do not count for the rate."""
        self.done = self._first_done = done
        if self._bar is not None:
            self._bar.update(done)

    def update(self, n: int = 1, **values: float) -> None:
        """Advance by n units; `values` are shown beside the bar."""
        self.done += n
        stopped = self._pace.update(n)
        if stopped and Ahead.outlook is not None:
            Ahead.outlook.stopped(stopped)
        now = time.monotonic()
        if now < self._speaks_from:
            return
        self._open_bar()
        if now - self._last_shown >= (REDRAW_EVERY if self._terminal else LINE_EVERY):
            self._show(values)

    def _open_bar(self) -> None:
        if self._terminal and self._bar is None:
            unit = self.unit
            self._bar = tqdm(total=self.total, desc=self.description, unit=unit, dynamic_ncols=True, bar_format=BAR)

    def _show(self, values: dict[str, float]) -> None:
        self._last_shown = time.monotonic()
        words = [*self._timing(), *(f"{k} {v:.4g}" for k, v in values.items())]
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.set_postfix_str(", ".join(words), refresh=False)
            self._bar.update(self.done - self._bar.n)
            self._bar.refresh()
            return
        text = "  ".join([f"{self.description}: {self.done}/{self.total} {self.unit}s", *words])
        print(text, file=sys.stderr, flush=True)

    def _timing(self) -> Iterator[str]:
        rate, left = self._pace.rate, self.total - self.done
        if rate is not None:
            yield f"{rate:.4g}/s" if rate >= 1 else f"{1 / rate:.3g} s/{self.unit}"
        if left <= 0:
            yield duration(self._pace.active)
        elif rate is not None:
            yield f"{duration(left / rate)} left"
        if left > 0 and Ahead.outlook is not None:
            yield Ahead.outlook.in_all(None if rate is None else left / rate, self.training)


def track(items: Iterable[T], total: int, description: str, unit: str = "item") -> Iterator[T]:
    with Progress(total, description, unit) as bar:
        for item in items:
            yield item
            bar.update()


def duration(seconds: float) -> str:
    """0.4 s, 35 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 9.95:
        return f"{round(seconds, 1):g} s"
    for (size, name), (inner, inner_name) in pairwise(UNITS):
        rounded = round(seconds / inner) * inner
        if rounded >= size:
            count, rest = divmod(rounded, size)
            return f"{count} {name}" + (f" {rest // inner} {inner_name}" if rest else "")
    return f"{seconds:.0f} s"


def about(seconds: float) -> str:
    """A duration that is only estimated: about 40 s, about 9 min, about 2 h 10 min."""
    if seconds < 55:
        rounded = max(round(seconds / 5) * 5, 5)
    elif seconds < 3600:
        rounded = round(seconds / 60) * 60
    else:
        rounded = round(seconds / 600) * 600
    return f"about {duration(rounded)}"


def readable_size(n_bytes: float) -> str:
    """512 B, 3.1 MiB, …"""
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.4g} GiB"
