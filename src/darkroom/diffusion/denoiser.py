"""The contracts between conditions, networks and samplers: plain tensors in, denoise(x, level) -> x0 out."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from darkroom.config.choices import PredictionType
from darkroom.diffusion.prediction import to_x0
from darkroom.diffusion.process import Process
from darkroom.diffusion.schedule import Level


@dataclass(frozen=True)
class Condition:
    """What each of N samples is asked to show; None: not by this field.

    tokens: (M, L, D), a text encoder's vector for each token. mask: (M, L) bool, which tokens count; None: all.
    pooled: (M, D'), a vector for each whole text.
    rows: (N,) int64, the text of each sample, where several share one; None: each has its own, M = N.
    class_ids: (N,) int64; the null class's id follows the last one.
    """

    tokens: Tensor | None = None
    mask: Tensor | None = None
    pooled: Tensor | None = None
    rows: Tensor | None = None
    class_ids: Tensor | None = None


class Conditions(NamedTuple):
    """What N samples are asked to show, and what guidance leads them away from."""

    asked: Condition
    null: Condition


class Network(Protocol):
    """A denoising network, as diffusion sees it."""

    def prepare(self, *conditions: Condition) -> Any:
        """What the network computes once of its conditions, their samples concatenated in order; only the network reads
        it."""
        ...

    def __call__(self, x: Tensor, t: Tensor, prepared: Any) -> Tensor:
        """x (N, C, H, W), the times t (N,) of the process, and a prepared condition of N samples -> a prediction."""
        ...


@dataclass(frozen=True)
class Denoiser:
    """A network trained to predict `prediction_type` on `process`."""

    network: Network
    process: Process
    prediction_type: PredictionType

    def __call__(self, x: Tensor, level: Level, prepared: Any) -> Tensor:
        """The expected x0 (N, C, H, W)."""
        return self.x0(self.output(x, level, prepared), x, level)

    def output(self, x: Tensor, level: Level, prepared: Any) -> Tensor:
        """What the network itself answers, float32 (N, C, H, W)."""
        t = torch.full((x.shape[0],), self.process.timestep(level), device=x.device)
        return self.network(x, t, prepared).float()

    def x0(self, output: Tensor, x: Tensor, level: Level) -> Tensor:
        """The x0 that an output at (x, level) stands for."""
        return to_x0(self.prediction_type, output, x, level)
