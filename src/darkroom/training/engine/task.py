"""What a network's training is, for `fit`: its networks, its losses, and what is measured and shown of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import nn

from darkroom.config.training import Optimization
from darkroom.core.checkpoint import Stateful
from darkroom.training.engine.chance import Reached
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.ema import Network
from darkroom.training.engine.phase import Phase

Shown = TypeVar("Shown", bound=nn.Module, contravariant=True)


@dataclass(frozen=True)
class Fitted(Generic[Network]):
    """What came of a training.

    network: the averaged weights that are handed on. step: the number of steps after which they were taken.
    steps: how many the training had.
    held_out: what `Task.validate` measured of them, where a name begins so.
    against_chance: what `chance.against_chance` says of them.
    """

    network: Network
    step: int
    steps: int
    held_out: Mapping[str, float]
    against_chance: Mapping[str, float | str]

    @property
    def when(self) -> str:
        """Which step the weights are from, in words."""
        return when(self.step, self.steps)


def when(step: int, steps: int) -> str:
    """Which step the weights are from: "after 826 steps, the best of 2068"."""
    return f"after {step} steps" if step == steps else f"after {step} steps, the best of {steps}"


class Previews(Protocol[Shown]):
    """What is looked at of a training, at its start, every so many steps and at its end."""

    @property
    def every(self) -> int:
        """Steps between two previews."""
        ...

    def show_inputs(self) -> None:
        """What the network will be trained on."""
        ...

    def show(self, network: Shown, step: int, heading: str) -> None:
        """What the weights make, at this step of the training."""
        ...


class Task(ABC, Generic[Network]):
    """A training, as its network knows it.

    stage: its name, as in params.yaml. description: shown on its progress bar.
    network: what the average is taken of, and is handed on.
    accumulation: micro-batches of a step.
    best_by: name of the held-out value whose lowest marks the best weights; None: the last ones are handed on.
    shards: whether strategy fsdp2 divides the network among the processes; others it leaves to ddp.
    """

    stage: str
    description: str
    network: Network
    context: TrainingContext
    accumulation: int = 1
    best_by: str | None = None
    shards: bool = False

    @abstractmethod
    def phases(self, config: Optimization) -> Sequence[Phase]:
        """The optimisation problems of a step, in order; config: of the main one."""

    @abstractmethod
    def validate(self, network: Network) -> Mapping[str, float]:
        """What is measured of these weights on held-out data, by the name of its curve."""

    @abstractmethod
    def reached(self, network: Network, held_out: Mapping[str, float]) -> Sequence[Reached]:
        """The figures of the weights handed on, beside what is reached without training."""

    @abstractmethod
    def flops(self) -> float:
        """Floating-point operations of a step for each sample, forward and backward."""

    @property
    def state(self) -> Mapping[str, Stateful]:
        """What a checkpoint must hold besides weights, optimisers and curves, by name."""
        return {}
