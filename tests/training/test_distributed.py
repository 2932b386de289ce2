"""One process and two: the same losses, the same end, the same after any interruption."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darkroom.core.errors import DarkroomError
from darkroom.training.engine.distributed import ALONE, CPU, Processes, _buckets
from tests.support import pair
from tests.support.projects import ROOT

HERE = "unet", "vae", "contrastive"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All trainings, by one process and by two: {"one": {name: Made}, "two": …}. This process is the one that leads."""
    folder = tmp_path_factory.mktemp("pair")
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # other threads, other last bits
    command = [sys.executable, "-m", "tests.support.pair", str(folder)]
    other = subprocess.Popen(command, cwd=ROOT, env=os.environ | threads, stderr=subprocess.DEVNULL)
    with other, pytest.MonkeyPatch.context() as patch:
        patch.setattr("darkroom.training.engine.distributed.TIMEOUT", timedelta(seconds=60))  # it may not come
        try:
            one = pair.alone(folder)
            two = pair.together(Processes(0, 2, CPU, pair.Meeting(folder)), folder)
        finally:
            other.kill()
    return {"one": one, "two": two}


def values(made: Any, name: str) -> list[float]:
    return [step[name] for step in made.values if name in step]


@pytest.mark.parametrize("training", HERE)
def test_one_process_and_two_have_the_same_losses(training: str, made: dict[str, dict[str, Any]]) -> None:
    one, two = made["one"][training], made["two"][training]
    assert [step.keys() for step in two.values] == [step.keys() for step in one.values]
    assert len(one.values) == pair.STEPS
    assert values(two, "loss") == pytest.approx(values(one, "loss"), rel=1e-6)
    assert values(one, "loss")[0] != values(one, "loss")[-1]
    for name in ("critic_loss", "adversarial_weight", "accuracy", "gradient_norm"):
        assert values(two, name) == pytest.approx(values(one, name), rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(("training", "within"), [("unet by muon", 1e-3), ("contrastive in bf16", 2e-2)])
def test_where_numbers_are_rounded_to_bf16_they_are_close(
    training: str, within: float, made: dict[str, dict[str, Any]]
) -> None:
    one, two = (values(made[who][training], "loss") for who in ("one", "two"))
    assert two == pytest.approx(one, rel=within)


def test_two_that_lost_each_other_go_on_as_if_they_had_not(made: dict[str, dict[str, Any]]) -> None:
    """To the bit: weights, averages, moments, and the batches of alike captions."""
    expected, lost, resumed = (made["two"][name] for name in ("contrastive", "lost", "resumed"))
    assert lost.values == expected.values[: pair.LOST_AT]
    assert resumed.values == expected.values[pair.EVERY :]
    for found, wanted in zip(tensors(resumed.state), tensors(expected.state), strict=True):
        assert torch.equal(found, wanted)


def test_two_can_go_on_where_one_was_lost(made: dict[str, dict[str, Any]]) -> None:
    went_on, expected = made["two"]["gone on from one"], made["one"]["vae"]
    assert values(went_on, "loss") == pytest.approx(values(expected, "loss")[pair.EVERY :], rel=1e-6)


def test_a_loss_that_is_no_number_in_one_process_stops_all_before_the_update(made: dict[str, dict[str, Any]]) -> None:
    one, two = made["one"]["diverging"], made["two"]["diverging"]
    assert one.error.startswith(f"step {pair.DIES_AT}: loss is nan at learning rate")
    assert two.error == one.error
    assert len(two.values) == pair.DIES_AT


def test_processes_that_begin_differently_are_refused(made: dict[str, dict[str, Any]]) -> None:
    assert made["two"]["differing"].error.startswith(
        "the processes of this training do not begin with the same weights and step; run again"
    )


def test_the_end_of_the_other_process_is_an_error_of_one_line(made: dict[str, dict[str, Any]]) -> None:
    dying = made["two"]["dying"]
    assert len(dying.values) == pair.DIES_AT
    assert dying.error.startswith("the processes of this training lost each other (")
    assert "\n" not in dying.error


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, dict):
        state = state.values()
    elif not isinstance(state, list | tuple):
        return []
    return list(chain.from_iterable(tensors(item) for item in state))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_every_row_is_taken_once_and_the_parts_are_those_of_one_process(size: int, accumulation: int) -> None:
    shares = [Processes(rank, size).parts(17, accumulation) for rank in range(size)]
    whole = ALONE.parts(17, accumulation)
    for i, part in enumerate(whole):
        pieces = [share[i] for share in shares]
        assert [row for piece in pieces for row in range(17)[piece]] == list(range(17)[part])
        assert max(len(range(17)[p]) for p in pieces) - min(len(range(17)[p]) for p in pieces) <= 1
    assert [row for part in whole for row in range(17)[part]] == list(range(17))


def test_gradients_are_summed_in_buckets_of_one_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.training.engine.distributed.BUCKET", 40)
    sizes = [(2, torch.float32), (8, torch.float32), (1, torch.float32), (1, torch.float64), (30, torch.float64)]
    gradients = [torch.zeros(n, dtype=dtype) for n, dtype in sizes]
    found = [[len(gradient) for gradient in bucket] for bucket in _buckets(gradients)]
    assert found == [[2, 8], [1], [1], [30]]


class Nobody:
    """A company that must not be asked for."""

    @contextmanager
    def rendezvous(self) -> Iterator[Path]:
        raise AssertionError
        yield

    def who_left(self) -> None: ...


def test_batch_norms_are_refused_by_name_before_anything_starts() -> None:
    class Normed(nn.Sequential): ...

    with (
        pytest.raises(DarkroomError, match=r"processes = 2: Normed has batch norms.* set DARKROOM_PROCESSES=1"),
        Processes(0, 2, CPU, Nobody()).distributed(0, [nn.Linear(1, 1), Normed(nn.BatchNorm2d(2))]),
    ):
        pass


def test_a_batch_too_small_for_all_is_refused() -> None:
    assert len(Processes(0, 4).micro_batches(8, 2)) == 2
    with pytest.raises(DarkroomError, match="processes = 4: a batch of 7 in 2 parts has no row for each of them"):
        Processes(0, 4).micro_batches(7, 2)
