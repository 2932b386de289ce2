"""What keeps a training that has diverged from going on, without a look at the device in every step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.core.errors import DarkroomError

MOST = 16  # values of one phase
NORM = "gradient_norm"


def exact(device: torch.device) -> torch.dtype:
    """The widest floats that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True)
class Measured:
    """What one phase measured in a step, still on the device.

    prefix: of its values' names in the log. values: (len(names),); the last is the gradient's norm.
    """

    prefix: str
    names: Sequence[str]
    values: Tensor
    learning_rate: float


class Values(Mapping[str, float]):
    """The values of a step by their names; the device is waited for when one is looked at, and not before."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        self._measured, self._known = measured, dict[str, float]()

    def _read(self) -> dict[str, float]:
        if not self._known:
            for part in self._measured:
                found = dict(zip(part.names, part.values.tolist(), strict=True))
                found["learning_rate"] = part.learning_rate
                self._known |= {f"{part.prefix}_{k}" if part.prefix else k: value for k, value in found.items()}
        return self._known

    def __getitem__(self, name: str) -> float:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


class Latch:
    """Closes at the first loss or gradient that is not finite; from then on no weight, moment or average moves.

    closed: 0 or 1, float32 on the device, which is what PyTorch's fused optimisers call `found_inf`.
    """

    def __init__(self, device: torch.device) -> None:
        self.closed = torch.zeros((), device=device)
        self._dtype = exact(device)
        self._step = torch.zeros((), dtype=self._dtype, device=device)
        self._first = torch.zeros(2 + MOST, dtype=self._dtype, device=device)  # its step, its phase, their values
        self._names: dict[int, Sequence[str]] = {}

    @property
    def open(self) -> Tensor:
        """1 until it closes, then 0: what updates are multiplied with."""
        return 1 - self.closed.to(self._dtype)

    def begin(self, step: int) -> None:
        """Step `step` is at work."""
        self._step.fill_(step)

    def judge(self, phase: int, names: Sequence[str], values: Tensor) -> None:
        """Close if one of the values (len(names),) of a phase is not finite."""
        self._names[phase] = names
        bad = (~values.isfinite().all()).float()
        found = torch.cat(
            [self._step.view(1), values.new_full((1,), phase), values, values.new_zeros(MOST - len(names))]
        )
        self._first.copy_(torch.where(bad * (1 - self.closed) > 0, found, self._first))
        self.closed.copy_(torch.maximum(self.closed, bad))

    def check(self, rate: Callable[[int, int], float]) -> None:
        """Wait for the device, and refuse to go on if it has closed.

        Args:
            rate: (phase, step) -> the learning rate.

        Raises:
            DarkroomError: which value was not finite at which step; nothing has been updated since.
        """
        if not bool(self.closed):
            return
        step, phase, *values = self._first.tolist()
        names = self._names[int(phase)]
        found = dict(zip(names, values, strict=False))
        last = {"loss": 1, NORM: 2}  # a term that is not finite says more than the sum it is in
        name = next(n for n in sorted(names, key=lambda n: last.get(n, 0)) if not _finite(found[n]))
        said = "gradient norm" if name == NORM else name
        raise DarkroomError(
            f"step {int(step)}: {said} is {found[name]} at learning rate {rate(int(phase), int(step)):g}; stopped "
            "before the update: lower the learning rate, or use precision fp32"
        )


def _finite(value: float) -> bool:
    return value - value == 0
