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

    phase: its name, the prefix of its values' names in the log. values: (len(names),); the last is the gradient's norm.
    """

    phase: str
    names: Sequence[str]
    values: Tensor


class Values(Mapping[str, float]):
    """The values of a step by their names; the device is waited for when one is looked at, and not before."""

    def __init__(self, measured: Sequence[Measured], learning_rates: Mapping[str, float]) -> None:
        self._measured, self._rates, self._known = measured, learning_rates, dict[str, float]()

    def _read(self) -> dict[str, float]:
        if not self._known:
            for of in self._measured:
                found = dict(zip(of.names, of.values.tolist(), strict=True))
                found["learning_rate"] = self._rates[of.phase]
                self._known |= {f"{of.phase}_{k}" if of.phase else k: value for k, value in found.items()}
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
        self._names: dict[str, Sequence[str]] = {}  # by phase, which is a number by its place here

    def start(self, step: int) -> None:
        """Step `step` is at work."""
        self._step.fill_(step)

    def judge(self, measured: Measured) -> None:
        """Close if one of a phase's values is not finite."""
        values, n = measured.values, len(measured.names)
        self._names[measured.phase] = measured.names
        number = list(self._names).index(measured.phase)
        bad = (~values.isfinite().all()).float()
        found = torch.cat([self._step.view(1), values.new_full((1,), number), values, values.new_zeros(MOST - n)])
        self._first.copy_(torch.where(bad * (1 - self.closed) > 0, found, self._first))
        self.closed.copy_(torch.maximum(self.closed, bad))

    def check(self, rate: Callable[[str, int], float]) -> None:
        """Wait for the device, and refuse to continue if it has closed.

        Args:
            rate: (phase, step) -> the learning rate.

        Raises:
            DarkroomError: which value was not finite at which step; nothing has been updated since.
        """
        if not bool(self.closed):
            return
        step, number, *values = self._first.tolist()
        phase, names = list(self._names.items())[int(number)]
        found = dict(zip(names, values, strict=False))
        last = {"loss": 1, NORM: 2}  # a term that is not finite says more than the sum it is in
        name = next(n for n in sorted(names, key=lambda n: last.get(n, 0)) if not _finite(found[n]))
        said = "gradient norm" if name == NORM else name
        raise DarkroomError(
            f"step {int(step)}: {said} is {found[name]} at learning rate {rate(phase, int(step)):g}; stopped "
            "before the update: lower the learning rate, or use precision fp32"
        )


def _finite(value: float) -> bool:
    return value - value == 0
