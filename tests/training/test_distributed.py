"""One process and two: the same losses, the same end, the same after any interruption."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import HashStore  # type: ignore[attr-defined]

from darkroom.core.errors import DarkroomError
from darkroom.training.engine import distributed
from darkroom.training.engine.distributed import ALONE, CPU, KEPT, Processes, group
from tests.support import pair
from tests.support.projects import ROOT

HERE = "unet", "vae", "contrastive"


@contextmanager
def others(folder: Path, trainings: str, size: int) -> Iterator[pair.Join]:
    """The further processes of these trainings, and how this one, which leads, joins them."""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # other threads, other last bits
    bucket = distributed.BUCKET
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr("darkroom.training.engine.distributed.TIMEOUT", timedelta(seconds=60))  # one may not come
        for rank in range(1, size):
            command = [sys.executable, "-m", "tests.support.pair", folder, trainings, rank, size, bucket]
            words = stack.enter_context((folder / f"{trainings}_{rank}.stderr").open("w"))
            other = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=os.environ | threads, stderr=words)
            stack.enter_context(other)
            stack.callback(other.kill)
        yield pair.Meeting(folder, 0, size).join


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All trainings, by one process and by two: {"one": {name: Made}, "two": …}. This process is the one that leads."""
    folder = tmp_path_factory.mktemp("pair")
    one = pair.alone(folder)
    with others(folder, "two", 2) as join:
        return {"one": one, "two": pair.run(pair.of_two(folder), join)}


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


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_over_fifty_steps_any_number_has_the_same_losses(size: int, tmp_path: Path) -> None:
    """Catches what grows slowly: a term that counts with a share of its weight, noise that depends on the process."""
    one = pair.alone(tmp_path, pair.LONG)
    with others(tmp_path, "long", size) as join:
        several = pair.run(pair.LONG, join)
    for name, expected in one.items():
        assert len(expected.values) == 50
        assert values(several[name], "loss") == pytest.approx(values(expected, "loss"), rel=1e-6), name


def test_three_resume_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches gradients that are added in another order after a start: three numbers, unlike two, have several sums."""
    monkeypatch.setattr("darkroom.training.engine.distributed.BUCKET", 0.01)  # so that there are many
    with others(tmp_path, "three", 3) as join:
        made = pair.run(pair.of_three(tmp_path), join)
    assert len(made["lost"].values) == 2
    assert made["resumed"].values == made["unet"].values[1:]
    for found, wanted in zip(tensors(made["resumed"].state), tensors(made["unet"].state), strict=True):
        assert torch.equal(found, wanted)


def test_parameters_that_a_process_or_all_leave_out_hold_nobody_up(made: dict[str, dict[str, Any]]) -> None:
    found = made["two"]["partly unused"]
    assert not found.error
    assert len(found.values) == pair.STEPS


def test_trainings_that_follow_each_other_end(tmp_path: Path) -> None:
    """Catches a training that hangs at its end, one in ten of these: its reducer was the last to hold the group, and
    closed it under the interpreter's lock, for which a thread of the group's waited."""
    command = [sys.executable, "-m", "tests.support.pair", tmp_path, "again"]
    ranks = [subprocess.Popen([*map(str, command), str(rank), "2", "25"], cwd=ROOT) for rank in range(2)]
    try:
        assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()


def test_state_dicts_know_nothing_of_wrappers(made: dict[str, dict[str, Any]]) -> None:
    """Catches `module.` in names, with which one process could not resume, nor anybody load the weights."""
    for name in HERE:
        one, two = (made[which][name].state for which in ("one", "two"))
        assert [state["network"].keys() for state in two[:-1]] == [state["network"].keys() for state in one[:-1]]


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
    shares = [Processes(rank, size).micro_batches(17, accumulation) for rank in range(size)]
    whole = ALONE.micro_batches(17, accumulation)
    for i, part in enumerate(whole):
        pieces = [share[i] for share in shares]
        assert [row for piece in pieces for row in range(17)[piece]] == list(range(17)[part])
        assert max(len(range(17)[p]) for p in pieces) - min(len(range(17)[p]) for p in pieces) <= 1
    assert [row for part in whole for row in range(17)[part]] == list(range(17))


def test_batch_norms_are_refused_by_name_before_anything_starts() -> None:
    class Normed(nn.Sequential): ...

    with (
        pytest.raises(DarkroomError, match=r"processes = 2: Normed has batch norms.* set DARKROOM_PROCESSES=1"),
        Processes(0, 2).distributed(0, [nn.Linear(1, 1), Normed(nn.BatchNorm2d(2))]),
    ):
        pass


def test_a_batch_too_small_for_all_is_refused() -> None:
    assert len(Processes(0, 4).micro_batches(8, 2)) == 2
    with pytest.raises(
        DarkroomError, match="processes = 4: a batch of 7 in 2 micro-batches has no row for each of them"
    ):
        Processes(0, 4).micro_batches(7, 2)


def test_what_the_leader_decides_reaches_all_by_the_store_and_does_not_stay_there_for_ever() -> None:
    """Also while the others are far behind; and when it leaves, they end in peace."""
    store = HashStore()
    leader, other = (Processes(rank, 2, CPU, "ddp", store) for rank in range(2))
    assert [leader.from_leader(value) for value in (7, "seven", None)] == [7, "seven", None]
    assert [other.from_leader(0) for _ in range(3)] == [7, "seven", None]
    for step in range(KEPT + 5):
        leader.from_leader(step)
        assert other.from_leader(-1) == step
    assert store.num_keys() <= KEPT + 1
    store.set(str(KEPT + 8), distributed.LEFT)
    with pytest.raises(SystemExit) as end:
        other.from_leader(0)
    assert end.value.code == 0


def test_no_strategy_is_refused_for_several_processes() -> None:
    with (
        pytest.raises(DarkroomError, match=r"strategy = 'none': is not for 2 processes; set DARKROOM_STRATEGY=ddp"),
        group(0, 2, CPU, HashStore(), "none"),
    ):
        pass
