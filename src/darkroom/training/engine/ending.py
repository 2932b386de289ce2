"""Where a training ends: at its last step, or at an earlier one that is asked for while it runs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Hook = Callable[[int, Mapping[str, float]], None]  # (steps done, the values of the last one)


class Request(Protocol):
    """Whoever may ask a running training to end early."""

    def listening(self) -> AbstractContextManager[None]:
        """It may ask while the block runs."""
        ...

    def asked(self) -> bool:
        """Whether it does; called before every step, so it must be cheap."""
        ...

    def settle(self, end: int, planned: int) -> bool:
        """Answer: the training can end after `end` steps instead of `planned`; whether it is to do so."""
        ...


class Ending:
    """The step after which a training ends; all that is done at the end of a training is done there.

    Args:
        steps: that the parameters give, over which the learning rate runs.
        stop_at: where to end before, or None.
        request: who may ask for an earlier end.
    """

    def __init__(self, steps: int, stop_at: int | None = None, request: Request | None = None) -> None:
        self.step = steps if stop_at is None else min(stop_at, steps)
        self._request = request

    def listening(self) -> AbstractContextManager[None]:
        """Training goes on in this block, and may be asked to end; of several processes, in the one that leads."""
        return nullcontext() if self._request is None else self._request.listening()

    def after(self, step: int) -> int:
        """The step after which the training ends, as known when `step` steps are done; call before every step."""
        if self._request is not None and self._request.asked():
            end = min(step + 1, self.step)
            if self._request.settle(end, self.step):
                self.step = end
        return self.step

    def around(self, hooks: Sequence[Hook]) -> Sequence[Hook]:
        """The hooks as the loop is to call them; `timing.Stopwatch` wraps them to time each."""
        return hooks
