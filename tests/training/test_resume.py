"""Resumed is uninterrupted, to the bit: weights, averages, optimisers, curves, the best so far."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from darkroom.config.training import Optimization
from darkroom.core.checkpoint import Checkpoints, Stateful
from darkroom.core.interruption import Interruption
from darkroom.core.nested import pack
from darkroom.core.rng import batch_indices, generator
from darkroom.training.engine.best import Best
from darkroom.training.engine.curves import Curves
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop, Loss, Phase
from tests.support.noting import noted

Make = Callable[..., Optimization]
STEPS, N = 12, 32


class LostError(Exception):
    """The process is gone."""


class Work:
    """Two networks, one trained against the other, with everything around them that a stage has."""

    def __init__(self, make: Make, layout: torch.memory_format) -> None:
        draw = generator(0, "work")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = nn.Sequential(
                nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3, padding=1)
            )
            self.other = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.LazyLinear(1))
            self.other(torch.zeros(1, 2, 6, 6))
        self.network.to(memory_format=layout)  # type: ignore[call-overload]
        self.x = torch.randn(N, 2, 6, 6, generator=draw)
        muon = make(optimizer="muon", learning_rate=0.01, lr_schedule="cosine", warmup_steps=3)
        adamw = make(optimizer="adamw", learning_rate=0.003)
        main, other = Loss.of(self.loss), Loss.of(self.against)
        self.phases = [Phase("", self.network, muon, main), Phase("other", self.other, adamw, other, 4)]
        self.ema, self.best = EMA(self.network, 30), Best()
        self.logged: dict[int, dict[str, float]] = {}
        self.curves = Curves(5, lambda step, values: self.logged.setdefault(step, {}).update(values))

    def _batch(self, step: int, rows: slice) -> Tensor:
        noise = torch.randn(8, 2, 6, 6, generator=generator(0, "noise", step))
        return (self.x[batch_indices(N, 8, step, seed=0)] + 0.1 * noise)[rows]

    def loss(self, step: int, rows: slice) -> Mapping[str, Tensor]:
        x = self._batch(step, rows)
        y = self.network(x)
        return {"loss": (y - x).square().mean() - 0.01 * self.other(y).mean()}

    def against(self, step: int, rows: slice) -> Mapping[str, Tensor]:
        x = self._batch(step, rows)
        return {"loss": self.other(self.network(x).detach()).mean().square() + (self.other(x) - 1).square().mean()}

    def train(self, folder: Path | None, lose_after: int | None = None) -> None:
        """Train, saving every other step; `lose_after`: the process is lost after so many steps."""

        def hook(step: int, values: Mapping[str, float]) -> None:
            self.best.consider(step, abs(step - 7.5), self.ema.network)
            if step % 4 == 0:
                self.curves.record(step, {"held_out/loss": values["loss"]})
            if step == lose_after:
                raise LostError

        Loop(
            self.phases,
            self.ema,
            steps=STEPS,
            batch_size=8,
            accumulation=2,
            hooks=[self.curves, hook],
            description="work",
            checkpoints=Checkpoints(folder, {}, 0, 2, Interruption()),
            state={"curves": self.curves, "best": self.best},
        ).run()

    def everything(self) -> tuple[str, dict[str, Tensor]]:
        """All state, bit for bit."""
        tensors: dict[str, Tensor] = {}
        parts: list[Stateful] = [*self.phases, self.ema, self.best, self.curves]
        return json.dumps([pack(part.state_dict(), tensors, str(i)) for i, part in enumerate(parts)]), tensors


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("lost", [(1,), (5,), (11,), (3, 4, 9), (2, 2, 2)])
def test_resumed_is_uninterrupted(
    tmp_path: Path, optimizer: Make, layout: torch.memory_format, lost: tuple[int, ...]
) -> None:
    expected = Work(optimizer, layout)
    expected.train(None)
    for step in lost:
        with pytest.raises(LostError):
            Work(optimizer, layout).train(tmp_path / "training", lose_after=step)
    resumed = Work(optimizer, layout)
    resumed.train(tmp_path / "training")
    (text, tensors), (expected_text, expected_tensors) = resumed.everything(), expected.everything()
    assert text == expected_text
    assert tensors.keys() == expected_tensors.keys()
    for name, value in expected_tensors.items():
        assert torch.equal(tensors[name], value), name
        assert tensors[name].stride() == value.stride(), name
    assert resumed.logged == expected.logged


def test_no_more_than_an_interval_is_done_again(tmp_path: Path, optimizer: Make) -> None:
    with pytest.raises(LostError):
        Work(optimizer, torch.contiguous_format).train(tmp_path / "training", lose_after=9)
    again = Work(optimizer, torch.contiguous_format)
    asked: list[int] = []
    loss = again.loss
    again.phases[0] = replace(again.phases[0], loss=Loss.of(lambda step, rows: noted(asked, step, loss(step, rows))))
    again.train(tmp_path / "training")
    assert min(asked) == 8
