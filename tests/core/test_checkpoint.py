"""Checkpoints: whole or not there, the newest whole one counts, and a full disk takes nothing away."""

import errno
import json
import logging
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.core import checkpoint
from darkroom.core.checkpoint import KEPT, TENSORS, TRAININGS, Checkpoints, OneFile
from darkroom.core.interruption import Interrupted, Interruption

END = 10_000  # steps
PROFILE = {"device": "cpu", "threads": "2"}


class Part:
    """A thing with a memory."""

    def __init__(self, value: float) -> None:
        self.state: dict[str, Any] = {"weights": torch.full((3,), value), "step": 0}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def every_step(folder: Path, interruption: Interruption | None = None, **profile: str) -> Checkpoints:
    return Checkpoints(folder, PROFILE | profile, 0, 1, interruption or Interruption())


def saved(folder: Path, *steps: int) -> None:
    checkpoints = every_step(folder)
    for step in steps:
        checkpoints.after(step, {"part": Part(step)}, END)


def restored(folder: Path, **profile: Any) -> tuple[int, float]:
    part = Part(-1)
    step = every_step(folder, **profile).resume({"part": part}, END)
    return step, float(part.state["weights"][0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_gone_on_from_and_the_last_two_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "training"
    assert restored(folder) == (0, -1)
    saved(folder, 1, 2, 10)
    assert restored(folder) == (10, 10)
    assert names(folder) == ["step_000000002", "step_000000010"]
    assert KEPT == 2


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["truncated", "altered", "gone", "empty"])
def test_a_damaged_newest_one_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, file: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "training"
    saved(folder, 1, 2)
    path = folder / "step_000000002" / file
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        altered = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"truncated": content[:-1], "altered": altered, "empty": b""}[how])
    with caplog.at_level(logging.WARNING):
        assert restored(folder) == (1, 1)
    assert "step_000000002: damaged" in caplog.text


def test_one_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "training"
    saved(folder, 1)
    (folder / ".step_000000002.partial").mkdir()
    (folder / ".step_000000002.partial" / TENSORS).write_bytes(b"half")
    assert restored(folder) == (1, 1)
    saved(folder, 2)
    assert names(folder) == ["step_000000001", "step_000000002"]


def test_a_full_disk_ends_no_training_and_takes_no_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "training"
    saved(folder, 1, 2)

    def full(path: Path, tensors: object) -> None:
        path.write_bytes(b"as much as there was room for")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with caplog.at_level(logging.WARNING):
        saved(folder, 3)
    assert "cannot be written" in caplog.text
    assert names(folder) == ["step_000000001", "step_000000002"]
    assert restored(folder) == (2, 2)


def test_another_profile_goes_on_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path / "training", 4)
    with caplog.at_level(logging.WARNING):
        assert restored(tmp_path / "training", threads="8") == (4, 4)
    assert "threads was 2, is 8" in caplog.text


def test_only_the_last_trainings_of_a_stage_keep_theirs(tmp_path: Path) -> None:
    for i in range(5):
        saved(tmp_path / f"training {i}", 1)
    assert names(tmp_path) == [f"training {i}" for i in range(5 - TRAININGS, 5)]


def test_by_the_clock_saving_takes_a_fiftieth_of_the_time_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, cost = [0.0], 3.0
    monkeypatch.setattr("darkroom.core.checkpoint.time.monotonic", lambda: now[0])

    def write(storage: OneFile, folder: Path, content: object) -> None:
        now[0] += cost
        (folder / "some").write_text("bytes")

    monkeypatch.setattr(OneFile, "write", write)
    checkpoints = Checkpoints(tmp_path / "training", PROFILE, 0.5, 0, Interruption())
    checkpoints.resume({}, END)
    spent, steps = 0, 2000
    for step in range(1, steps + 1):
        now[0] += 1.0
        before = now[0]
        checkpoints.after(step, {}, END)
        spent += now[0] > before
    assert spent == 1 + (steps - 30) // 150  # the first after half a minute, then one in fifty times its cost
    assert spent * cost <= 0.021 * now[0]


def test_when_the_end_is_asked_for_it_saves_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interruption = Interruption()
    checkpoints = Checkpoints(tmp_path / "training", PROFILE, 0, 0, interruption)
    checkpoints.after(1, {"part": Part(1)}, END)
    assert not (tmp_path / "training").exists()
    monkeypatch.setattr(Interruption, "asked", signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        checkpoints.after(2, {"part": Part(2)}, END)
    assert caught.value.saved == "saved at step 2"
    assert restored(tmp_path / "training") == (2, 2)


def test_nothing_but_json_and_safetensors_is_written(tmp_path: Path) -> None:
    saved(tmp_path / "training", 1)
    folder = tmp_path / "training" / "step_000000001"
    assert names(folder) == ["manifest.json", "state.json", "tensors.safetensors"]
    assert json.loads((folder / "state.json").read_text())["profile"] == PROFILE


@pytest.mark.parametrize(
    ("saved_at", "aimed_at", "end", "good"),
    [
        (4, 16, 16, True),
        (4, 16, 9, True),  # an earlier end was asked for since
        (4, 9, 16, True),
        (9, 16, 9, False),  # what is done at the end is not in it
        (9, 9, 16, False),  # it is, and must not be
        (9, 9, 9, True),
        (12, 16, 9, False),
    ],
)
def test_what_was_saved_counts_on_the_way_to_another_end_but_not_beyond_it(
    tmp_path: Path, saved_at: int, aimed_at: int, end: int, good: bool
) -> None:
    """Catches a training that is to end early and hands on weights of a later step, or an end measured twice."""
    every_step(tmp_path / "training").after(saved_at, {"part": Part(saved_at)}, aimed_at)
    part = Part(-1)
    assert every_step(tmp_path / "training").resume({"part": part}, end) == (saved_at if good else 0)
    assert float(part.state["weights"][0]) == (saved_at if good else -1)


def test_of_what_lies_beyond_an_earlier_end_nothing_pushes_new_checkpoints_out(tmp_path: Path) -> None:
    """Catches the oldest being told by their steps, which would remove the new ones of a training that ends earlier."""
    folder = tmp_path / "training"
    every_step(folder).after(20, {"part": Part(20)}, 30)
    every_step(folder).after(21, {"part": Part(21)}, 30)
    checkpoints = every_step(folder)
    assert checkpoints.resume({"part": Part(0)}, 10) == 0
    time.sleep(0.01)
    checkpoints.after(1, {"part": Part(1)}, 10)
    assert every_step(folder).resume({"part": Part(0)}, 10) == 1
