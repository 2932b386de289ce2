"""The contract between every network and every sampler: denoise(x, level, condition) -> x0."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from darkroom.config.choices import PredictionType
from darkroom.diffusion.prediction import to_x0
from darkroom.diffusion.process import Process
from darkroom.diffusion.schedule import Level


@dataclass(frozen=True)
class Condition:
    """What each of N samples is asked to show, in the form the network takes it.

    context: the network's keys and values, (key, value) for each of its cross-attentions, prepared once for a whole
        sampling run; None without text.
    class_ids: (N,) int64; None without classes.
    """

    context: Sequence[tuple[Tensor, Tensor]] | None = None
    class_ids: Tensor | None = None

    def cat(self, other: "Condition") -> "Condition":
        """The samples of this condition followed by those of the other, which must be of the same kind."""
        context = class_ids = None
        if self.context is not None and other.context is not None:
            pairs = zip(self.context, other.context, strict=True)
            context = [(torch.cat([k, k2]), torch.cat([v, v2])) for (k, v), (k2, v2) in pairs]
        if self.class_ids is not None and other.class_ids is not None:
            class_ids = torch.cat([self.class_ids, other.class_ids])
        return Condition(context, class_ids)


class Denoise(Protocol):
    """x (N, C, H, W) at a level, and a condition of N samples -> the expected x0 (N, C, H, W)."""

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Tensor: ...


@dataclass(frozen=True)
class Denoiser:
    """A network trained to predict `prediction_type` on `schedule`, as a `Denoise`.

    network: (x, t, condition) -> prediction, with t (N,) float, the times of the process.
    """

    network: Callable[[Tensor, Tensor, Any], Tensor]
    schedule: Process
    prediction_type: PredictionType

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Tensor:
        return self.x0(self.output(x, level, condition), x, level)

    def output(self, x: Tensor, level: Level, condition: Condition) -> Tensor:
        """What the network itself answers, float32 (N, C, H, W)."""
        t = torch.full((x.shape[0],), self.schedule.timestep(level), device=x.device)
        return self.network(x, t, condition).float()

    def x0(self, output: Tensor, x: Tensor, level: Level) -> Tensor:
        """The x0 that an output at (x, level) stands for."""
        return to_x0(self.prediction_type, output, x, level)
