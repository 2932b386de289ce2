"""Timing a training that is not to go on: some of its steps, and what it does between them."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from darkroom.training.engine.ending import Ending
from darkroom.training.engine.loop import Hook

WARM_UP, TIMED = 2, 20  # steps, the first of which compile and fill caches


@dataclass(frozen=True)
class Timing:
    """What was measured, in seconds. steps: of each step, in order. between: of one measurement on held-out data, one
    set of previews, and all else that is done every so many steps. before: until the training began.
    """

    steps: Sequence[float]
    between: float
    before: float

    @property
    def step(self) -> float:
        """A step's time: the median."""
        return statistics.median(self.steps)

    @property
    def spread(self) -> float:
        """Of the slow half of the steps against the fast half, as a share of a step: how sure `step` is."""
        low, _, high = statistics.quantiles(self.steps, n=4)
        return (high - low) / 2 / self.step


class MeasuredError(Exception):
    """All is measured; raised out of the training."""

    def __init__(self, timing: Timing) -> None:
        super().__init__("measured")
        self.timing = timing


class Stopwatch(Ending):
    """Ends a training by MeasuredError once WARM_UP + TIMED steps of it are done, and its hooks once more.

    Hooks are called by that with the step 0, of which every number of steps is a divisor. A training of fewer steps
    goes on beyond its end: its learning rate is that of its last step or nonsense, and nothing is kept.
    """

    def __init__(self, steps: int, stop_at: int | None = None) -> None:
        super().__init__(max(steps, WARM_UP + TIMED + 1))
        self._created = time.monotonic()
        self._before = 0.0
        self._last: float | None = None
        self._steps: list[float] = []
        self._hooks: Sequence[Hook] = ()
        self._in_hooks = 0.0
        self._values: Mapping[str, float] = {}

    def after(self, step: int) -> int:
        """See `Ending`; the time since the last call is a step's."""
        now = time.monotonic()
        if self._last is None:
            self._before = now - self._created
        else:
            self._steps.append(now - self._last - self._in_hooks)
        if len(self._steps) == WARM_UP + TIMED:
            raise MeasuredError(Timing(self._steps[WARM_UP:], self._between(), self._before))
        self._last, self._in_hooks = time.monotonic(), 0.0
        return self.step

    def around(self, hooks: Sequence[Hook]) -> Sequence[Hook]:
        """See `Ending`."""
        self._hooks = hooks
        return [self._call_all]

    def _call_all(self, step: int, values: Mapping[str, float]) -> None:
        self._values = dict(values)  # waits for the device, for a step's time is all of it
        began = time.monotonic()
        for hook in self._hooks:
            hook(step, values)
        self._in_hooks = time.monotonic() - began

    def _between(self) -> float:
        began = time.monotonic()
        for hook in self._hooks:
            hook(0, self._values)
        return time.monotonic() - began
