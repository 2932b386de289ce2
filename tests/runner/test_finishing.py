"""`darkroom finish`, both sides: who asks, and the training that is asked. The whole of it is in end_to_end.

Faults caught: a request that waits for ever for a training that is not there; one that is left behind and ends the
next training; an end written to params.yaml that something else was written to meanwhile.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from darkroom.config.merging import complete_text
from darkroom.config.params import load
from darkroom.core.artifact import read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.runner.finishing import Finish, Finished, differences, finish
from darkroom.training.engine.ending import Ending

STAGE = "train_unet"
RECIPE = Path(__file__).parents[2] / "recipes" / "scenes-quick.yaml"
TRAINING, ASKED, ANSWER = (Path(".checkpoints") / f"{STAGE}.{name}" for name in ("training", "finish", "answer"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes(complete_text(RECIPE).encode())
    Path(".checkpoints").mkdir()


def section() -> dict[str, object]:
    found: dict[str, object] = getattr(load(), STAGE).model_dump()
    return found


def change(old: str, new: str) -> None:
    """In the section of the stage."""
    before, name, behind = Path("params.yaml").read_text().partition(f"\n{STAGE}:\n")
    assert old in behind
    Path("params.yaml").write_text(before + name + behind.replace(old, new, 1))


def asked_of(ending: Ending, step: int = 5) -> Finished | DarkroomError:
    """What who asks is told by a training that is `step` steps on, when it comes to its next one."""
    told: list[Finished | DarkroomError] = []

    def ask() -> None:
        try:
            told.append(finish(STAGE, lambda text: None))
        except DarkroomError as error:
            told.append(error)

    with ending.listening():
        asking = threading.Thread(target=ask)
        asking.start()
        while asking.is_alive():
            ending.after(step)
            asking.join(0.01)
    return told[0]


def test_the_end_is_written_where_it_is_a_parameter() -> None:
    request = Finish(STAGE, section())
    ending = Ending(120, request=request)
    assert asked_of(ending) == Finished(6, 120, 20)
    assert ending.step == 6
    assert section()["stop_at"] == request.section["stop_at"] == 6
    assert not TRAINING.exists()
    assert not ASKED.exists()


def test_a_training_at_its_last_step_changes_nothing() -> None:
    before = Path("params.yaml").read_bytes()
    assert asked_of(Ending(120, request=Finish(STAGE, section())), step=119) == Finished(120, 120, 20)
    assert Path("params.yaml").read_bytes() == before


def test_a_training_goes_on_where_params_say_something_else_by_now() -> None:
    ending = Ending(120, request=Finish(STAGE, section()))
    change("batch_size: 32", "batch_size: 16")
    before = Path("params.yaml").read_bytes()
    with pytest.raises(
        DarkroomError, match=r"train_unet continues: .*batch_size was 32, is 16, since this training began"
    ):
        raise asked_of(ending)  # type: ignore[misc]
    assert Path("params.yaml").read_bytes() == before
    assert ending.step == 120


def test_params_that_are_unsound_by_now_are_said_before_anything_is_asked() -> None:
    ending = Ending(120, request=Finish(STAGE, section()))
    change("  init_from: null", "  init_fro: null")
    with pytest.raises(DarkroomError, match=r"params\.yaml: train_unet\.init_fro = null is an unknown key"):
        raise asked_of(ending)  # type: ignore[misc]
    assert ending.step == 120
    assert not ASKED.exists()


def test_of_two_trainings_of_a_stage_the_second_is_not_ended() -> None:
    """Both are to end after the same step, and the first has not."""
    request = Finish(STAGE, section())
    with Ending(120, request=request).listening():
        pass
    second = Ending(120, request=request)
    with pytest.raises(DarkroomError, match="continues: a first training of this stage is through"):
        raise asked_of(second)  # type: ignore[misc]
    assert second.step == 120


def test_a_request_that_was_left_behind_ends_nothing() -> None:
    ASKED.write_text("")
    ending = Ending(120, request=Finish(STAGE, section()))
    with ending.listening():
        assert ending.after(5) == 120
    assert section()["stop_at"] is None


def gone(pid: int = 2**22 + 1, since: float = 0.0) -> Callable[[], None]:
    return lambda: write_json(TRAINING, {"pid": pid, "since": since})


@pytest.mark.parametrize(
    "left",
    [
        lambda: None,
        gone(),
        gone(os.getpid(), 1.0),  # the number is another process's by now
        lambda: write_json(TRAINING, {}),
        lambda: write_json(TRAINING, {"pid": "x", "since": 1}),
        lambda: write_json(TRAINING, {"pid": -1, "since": 1}),
    ],
)
def test_no_training_is_said_at_once(left: Callable[[], None]) -> None:
    left()
    with pytest.raises(DarkroomError, match=r"train_unet: no training of it runs in this folder; start it with dvc"):
        finish(STAGE, lambda text: None)
    assert not ASKED.exists()


@pytest.mark.parametrize("stage", ["prepare_data", "evaluate", "register", "train_unit", ""])
def test_only_what_trains_can_be_finished(stage: str) -> None:
    with pytest.raises(DarkroomError, match=r"is not a stage that trains; those are train_vae, .*train_evaluator"):
        finish(stage, lambda text: None)


def test_a_training_that_is_over_before_it_answers_ended_by_itself() -> None:
    me = psutil.Process()
    write_json(TRAINING, {"pid": me.pid, "since": me.create_time()})

    def ends() -> None:
        _until(ASKED)
        TRAINING.unlink()

    over = threading.Thread(target=ends)
    over.start()
    with pytest.raises(DarkroomError, match="its training was over before it could be asked"):
        finish(STAGE, lambda text: None)
    over.join()
    assert not ASKED.exists()


def _until(file: Path) -> None:
    while not file.exists():
        threading.Event().wait(0.01)


def test_an_answer_to_an_earlier_request_is_not_taken_for_this_one() -> None:
    write_json(ANSWER, {"end": 3, "planned": 120})
    assert asked_of(Ending(120, request=Finish(STAGE, section()))) == Finished(6, 120, 20)
    assert read_json(ANSWER) == {"end": 6, "planned": 120}


def test_differences_are_named_however_deep() -> None:
    before = {"a": 1, "b": {"c": [1], "d": None}, "gone": 2}
    now = {"a": 1, "b": {"c": [2], "d": None}, "new": 3}
    assert differences(before, now, "s") == ["s.b.c was [1], is [2]", "s.gone was 2, is null", "s.new was null, is 3"]
    assert differences(before, before, "s") == []
