"""Where a training ends: at its last step, or at an earlier one that is asked for while it runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from darkroom.core.artifact import atomic_path

Hook = Callable[[int, Mapping[str, float]], None]  # (steps done, the values of the last one)
AHEAD = 2  # steps: no process of a training can have passed the second one when the first has not ended


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
        self._shared: Path | None = None
        self._leads = True

    @contextmanager
    def watched(self, leads: bool, rendezvous: Path | None) -> Iterator[None]:
        """Training goes on in this block.

        Args:
            leads: whether this process may be asked; the others learn it from that one.
            rendezvous: a path that all processes of the training share; None where there is one process.
        """
        self._leads = leads
        self._shared = None if rendezvous is None else rendezvous.with_name(f"{rendezvous.name}.ends")
        with self._request.listening() if leads and self._request is not None else nullcontext():
            yield

    def after(self, step: int) -> int:
        """The step after which the training ends, as known when `step` steps are done; call before every step.

        Every process comes to the same answer in time: what the one that leads writes before a step, the others read
        before the next one, for no step ends before all have taken part in it.
        """
        if self._leads:
            if self._request is not None and self._request.asked():
                end = min(step + (1 if self._shared is None else AHEAD), self.step)
                if self._request.settle(end, self.step) and end < self.step:
                    self.step = end
                    self._tell()
        elif self._shared is not None and self._shared.exists():
            self.step = int(self._shared.read_text())
        return self.step

    def around(self, hooks: Sequence[Hook]) -> Sequence[Hook]:
        """The hooks as the loop is to call them; `timing.Stopwatch` wraps them to time each."""
        return hooks

    def _tell(self) -> None:
        if self._shared is not None:
            with atomic_path(self._shared) as beside:
                beside.write_text(str(self.step))
