"""The loop: what a step is made of, and that nothing bad is ever stepped on."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from darkroom.config.training import Optimization
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import batch_indices, generator
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Loop, Loss, Phase
from darkroom.training.engine.optim import learning_rate

Make = Callable[..., Optimization]
N = 40


class Regression:
    """A line through points; weights are random at first."""

    def __init__(self) -> None:
        draw = generator(0, "regression")
        self.x, self.network = torch.randn(N, 3, generator=draw), nn.Linear(3, 1)
        self.y = self.x @ torch.tensor([[1.0], [2.0], [3.0]])
        for weight in self.network.parameters():
            weight.data = torch.randn(weight.shape, generator=draw)
        self.asked: list[tuple[int, int]] = []

    def loss(self, step: int, rows: slice) -> Mapping[str, Tensor]:
        indices = batch_indices(N, 10, step, seed=0)[rows]
        self.asked.append((step, len(indices)))
        error = (self.network(self.x[indices]) - self.y[indices]).square()
        return {"loss": error.mean(), "worst": error.max()}

    def train(
        self, config: Optimization, steps: int = 5, accumulation: int = 1, **more: object
    ) -> list[dict[str, float]]:
        seen: list[dict[str, float]] = []
        self.ema = EMA(self.network, 20)
        self.phase = Phase("", self.network, config, Loss.of(more.pop("loss", self.loss)))  # type: ignore[arg-type]
        Loop(
            [self.phase],
            self.ema,
            steps=steps,
            batch_size=10,
            accumulation=accumulation,
            hooks=[lambda step, values: seen.append({"step": step, **values})],
            description="regression",
            **more,  # type: ignore[arg-type]
        ).run()
        return seen


def test_training_finds_the_line(optimizer: Make, flat: Callable[[nn.Module], Tensor]) -> None:
    regression = Regression()
    seen = regression.train(optimizer(learning_rate=0.1, lr_schedule="cosine"), steps=200)
    torch.testing.assert_close(flat(regression.network), torch.tensor([1.0, 2.0, 3.0, 0.0]), atol=1e-2, rtol=0)
    assert seen[-1]["loss"] < 1e-3 * seen[0]["loss"]


@pytest.mark.parametrize("parts", [2, 3, 4, 10])
def test_a_step_in_parts_is_the_same_step(parts: int, optimizer: Make, flat: Callable[[nn.Module], Tensor]) -> None:
    """Also where the parts are not equally large."""
    whole, split = Regression(), Regression()
    at_once, in_parts = whole.train(optimizer()), split.train(optimizer(), accumulation=parts)
    torch.testing.assert_close(flat(split.network), flat(whole.network), rtol=1e-5, atol=1e-6)
    assert [v["loss"] for v in in_parts] == pytest.approx([v["loss"] for v in at_once], rel=1e-5)
    assert sum(n for step, n in split.asked if step == 0) == 10
    assert len(split.asked) == 5 * parts


def test_trained_twice_the_weights_are_the_same(optimizer: Make, flat: Callable[[nn.Module], Tensor]) -> None:
    first, second = Regression(), Regression()
    for regression in (first, second):
        regression.train(optimizer(clip_norm=1.0))
    assert torch.equal(flat(first.network), flat(second.network))
    assert torch.equal(flat(first.ema.network), flat(second.ema.network))


def test_each_step_has_the_rate_of_its_number(optimizer: Make) -> None:
    config = optimizer(warmup_steps=2, lr_schedule="cosine")
    seen = Regression().train(config, steps=6)
    assert [v["step"] for v in seen] == [1, 2, 3, 4, 5, 6]
    assert [v["learning_rate"] for v in seen] == [learning_rate(config, step, 6) for step in range(6)]


def test_the_gradient_is_clipped_to_its_norm_and_reported_before(optimizer: Make) -> None:
    regression = Regression()
    seen = regression.train(optimizer(clip_norm=0.5), steps=1)
    left = [p.grad.norm() for p in regression.network.parameters() if p.grad is not None]
    assert seen[0]["gradient_norm"] > 0.5
    assert float(torch.stack(left).norm()) == pytest.approx(0.5, rel=1e-4)


def broken(regression: Regression, at: int, term: str, value: float) -> Callable[[int, slice], Mapping[str, Tensor]]:
    def loss(step: int, rows: slice) -> Mapping[str, Tensor]:
        terms = dict(regression.loss(step, rows))
        if step == at:
            terms[term] = terms[term] * value
            terms["loss"] = terms["loss"] + terms[term]
        return terms

    return loss


@pytest.mark.parametrize("term", ["loss", "worst"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_update(
    term: str, value: float, optimizer: Make, flat: Callable[[nn.Module], Tensor]
) -> None:
    sound, regression = Regression(), Regression()
    sound.train(optimizer(), steps=3)
    with pytest.raises(DarkroomError) as error:
        regression.train(optimizer(), steps=5, loss=broken(regression, 3, term, value))
    assert str(error.value) == (
        f"step 3: {term} is {value} at learning rate 0.01; stopped before the update: "
        "lower the learning rate, or use precision fp32"
    )
    assert torch.equal(flat(regression.network), flat(sound.network))
    assert torch.equal(flat(regression.ema.network), flat(sound.ema.network))


def test_a_gradient_that_is_no_number_stops_it_too(optimizer: Make, flat: Callable[[nn.Module], Tensor]) -> None:
    regression = Regression()
    before = flat(regression.network)

    def loss(step: int, rows: slice) -> Mapping[str, Tensor]:
        return {"loss": (regression.network.weight * 0).abs().sqrt().sum()}  # 0, with an infinite slope

    with pytest.raises(DarkroomError, match="step 0: gradient norm is nan"):
        regression.train(optimizer(), loss=loss)
    assert torch.equal(flat(regression.network), before)


def test_a_phase_waits_for_its_start_and_names_its_values(optimizer: Make) -> None:
    first, second = Regression(), Regression()
    seen = []
    Loop(
        [
            Phase("", first.network, optimizer(), Loss.of(first.loss)),
            Phase("critic", second.network, optimizer(), Loss.of(second.loss), start=3),
        ],
        EMA(first.network, 20),
        steps=5,
        batch_size=10,
        accumulation=1,
        hooks=[lambda step, values: seen.append(sorted(values))],
        description="two",
    ).run()
    assert [step for step, _ in second.asked] == [3, 4]
    own = ["gradient_norm", "learning_rate", "loss", "worst"]
    assert seen[2] == own
    assert seen[3] == sorted([*own, *(f"critic_{name}" for name in own)])


# What the host may not wait for between two reads of the log. A test on the CPU sees values that are looked at; copies
# to the host are seen under fake CUDA tensors, which know the device of everything and compute nothing.
WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)


class Waits(TorchDispatchMode):
    """Counts the operations that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITS:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("planted", [False, True])
def test_no_value_is_looked_at_between_two_reads(kind: str, planted: bool, optimizer: Make) -> None:
    """A step that waits for the device is as slow as the host; the test sees one that is planted."""
    regression, waits, by_step = Regression(), Waits(), []

    def loss(step: int, rows: slice) -> Mapping[str, Tensor]:
        terms = regression.loss(step, rows)
        if planted and step == 2:
            float(terms["loss"].detach())
        return terms

    def watch(step: int, values: Mapping[str, float]) -> None:
        by_step.append(len(waits.seen))

    with waits:
        Loop(
            [Phase("", regression.network, optimizer(optimizer=kind, clip_norm=1.0), Loss.of(loss))],
            EMA(regression.network, 20),
            steps=12,
            batch_size=10,
            accumulation=2,
            hooks=[watch],
            read_every=(5,),
            description="regression",
        ).run()
    new = [after - before for before, after in pairwise([0, *by_step])]
    assert [step for step, n in enumerate(new, 1) if n and step % 5 and step != 12] == ([3] if planted else [])
    assert all(new[step - 1] for step in (5, 10, 12))


@pytest.mark.parametrize("term", ["loss", "worst"])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_what_is_found_late_has_still_moved_nothing(
    term: str, kind: str, optimizer: Make, flat: Callable[[nn.Module], Tensor]
) -> None:
    """Read only every 10 steps, a loss that was no number at step 3 leaves weights, moments and average of step 3."""
    sound, regression = Regression(), Regression()
    config = optimizer(optimizer=kind, clip_norm=1.0, weight_decay=0.1)
    sound.train(config, steps=3)
    with pytest.raises(DarkroomError, match=rf"^step 3: {term} is nan at learning rate 0.01; stopped before the"):
        regression.train(config, steps=9, loss=broken(regression, 3, term, float("nan")), read_every=(10,))
    assert torch.equal(flat(regression.network), flat(sound.network))
    assert torch.equal(flat(regression.ema.network), flat(sound.ema.network))
    for mine, theirs in zip(regression.phase.optimizers, sound.phase.optimizers, strict=True):
        for a, b in zip(mine.state.values(), theirs.state.values(), strict=True):
            assert all(torch.equal(a[name], b[name]) for name in b)
