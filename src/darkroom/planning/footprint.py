"""The memory of a device that a stage needs, by what it is for."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Footprint:
    """Bytes on the device that a stage computes on, at the peak of a step.

    averages: of the running average and, where a stage hands on the best weights, those. activations: all that lives
    between forward and backward pass, and on the way.
    """

    weights: float
    gradients: float = 0.0
    optimizer: float = 0.0
    averages: float = 0.0
    activations: float = 0.0

    def divided(self, processes: int, block: float) -> "Footprint":
        """Of one of `processes` that each hold a part; block: of weights that are put together at once.

        There are two of them when one is fetched while the other computes, and the gradient of one.
        """
        if processes == 1:
            return self
        gathered = {"weights": self.weights / processes + 2 * block, "gradients": self.gradients / processes + block}
        return replace(self, **gathered, optimizer=self.optimizer / processes, averages=self.averages / processes)

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.averages + self.activations
