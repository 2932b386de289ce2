"""Which weights a training hands on: those of the best held-out value, or the last."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Best:
    """Remembers the weights with the lowest value so far."""

    def __init__(self) -> None:
        self.value = float("inf")
        self.step = 0
        self._state: dict[str, Tensor] | None = None

    def consider(self, step: int, value: float, network: nn.Module) -> None:
        """Keep a copy of the weights if `value` is the lowest so far."""
        if value < self.value:
            self.value, self.step = value, step
            self._state = copy.deepcopy(network.state_dict())

    def restore(self, network: nn.Module) -> None:
        """Put the best weights into `network`."""
        if self._state is not None:
            network.load_state_dict(self._state)

    def state_dict(self) -> Mapping[str, Any]:
        """The lowest value, when it was, and the weights."""
        return {"value": self.value, "step": self.step, "weights": self._state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict`."""
        self.value, self.step, self._state = state["value"], state["step"], state["weights"]
