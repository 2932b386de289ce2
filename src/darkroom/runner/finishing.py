"""`darkroom finish`: a running training is asked to end early, and params.yaml changed, so that the end is a parameter.

Beside the lock of a stage in .checkpoints lie, while its training runs: STAGE.training (who trains), STAGE.finish
(the end is asked for) and STAGE.answer (what became of that).
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import psutil

from darkroom.config import params as parameters
from darkroom.config.edit import edit
from darkroom.config.faults import short
from darkroom.config.training import Training
from darkroom.core.artifact import atomic_path, read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.runner.resuming import FOLDER, STOP_AT

LOOK_EVERY = 0.1  # seconds
REMIND_AFTER = 15.0  # seconds without an answer


@dataclass(frozen=True)
class _Files:
    training: Path
    asked: Path
    answer: Path

    @classmethod
    def of(cls, stage: str) -> "_Files":
        return cls(*(FOLDER / f"{stage}.{name}" for name in ("training", "finish", "answer")))


class Finish:
    """A stage's side: a `training.ending.Request`.

    Args:
        section: of params.yaml, with which the stage began.
    """

    def __init__(self, stage: str, section: Mapping[str, Any]) -> None:
        self.stage, self.section = stage, dict(section)
        self._files = _Files.of(stage)
        self._trainings = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        self._trainings += 1
        files, me = self._files, psutil.Process()
        files.asked.unlink(missing_ok=True)
        files.answer.unlink(missing_ok=True)
        write_json(files.training, {"pid": me.pid, "since": me.create_time()})
        try:
            yield
        finally:
            for file in (files.training, files.asked):
                file.unlink(missing_ok=True)

    def asked(self) -> bool:
        return os.path.exists(self._files.asked)  # noqa: PTH110 - a path is built in no time here, once a step

    def settle(self, end: int, planned: int) -> bool:
        """See `Request`: an earlier end is written to params.yaml before the training goes there."""
        answer: dict[str, Any] = {"end": end, "planned": planned}
        try:
            if end < planned:
                self._write(end)
        except (DarkroomError, OSError) as error:
            answer = {"error": str(error)}
        with suppress(OSError):
            self._files.asked.unlink(missing_ok=True)
            write_json(self._files.answer, answer)
        return "error" not in answer

    def _write(self, end: int) -> None:
        if self._trainings > 1:
            raise DarkroomError("a first training of this stage is through, and both end after the same step")
        now = getattr(parameters.load(), self.stage).model_dump()
        if changed := differences(self.section, now, self.stage):
            raise DarkroomError(
                f"{parameters.PARAMS_FILE}: {'; '.join(changed)}, since this training began; change it back, then "
                "finish it"
            )
        edit(parameters.PARAMS_FILE, {(self.stage, STOP_AT): end})
        self.section[STOP_AT] = end


def differences(before: Any, now: Any, key: str) -> list[str]:
    """What is another value now, as in "train_unet.steps was 100, is 200"; of sections, key by key."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = sorted(before.keys() | now.keys())
        return [line for name in names for line in differences(before.get(name), now.get(name), f"{key}.{name}")]
    return [] if before == now else [f"{key} was {short(before, plain=True)}, is {short(now, plain=True)}"]


@dataclass(frozen=True)
class Finished:
    """What the stage answered: it ends after step `end` of the `planned` ones; those are equal where it does so anyway.

    warmup: the steps in which its learning rate rises.
    """

    end: int
    planned: int
    warmup: int


def finish(stage: str, remind: Callable[[str], None]) -> Finished:
    """Ask a running training to end, and wait for the answer.

    remind: is called, once, with why it takes long.
    Raises DarkroomError: there is no such training here, or it cannot be ended now.
    """
    check_trains(stage)
    section = training_of(parameters.load(), stage)
    files = _Files.of(stage)
    process = _at_work(files, stage)
    files.answer.unlink(missing_ok=True)
    with atomic_path(files.asked) as beside:
        beside.write_text("")
    try:
        answer = _wait(files, process, stage, remind)
    except KeyboardInterrupt:
        files.asked.unlink(missing_ok=True)
        raise
    if "error" in answer:
        raise DarkroomError(f"{stage} continues: {answer['error']}")
    return Finished(answer["end"], answer["planned"], section.lr_schedule.warmup_steps)


def check_trains(stage: str) -> None:
    """Refuse a stage that trains nothing."""
    if stage not in (trained := trained_stages()):
        raise DarkroomError(f"{stage!r} is not a stage that trains; those are {', '.join(trained)}")


def trained_stages() -> list[str]:
    """The stages that can train something."""
    return [name for name, field in parameters.Params.model_fields.items() if _trains(field.annotation)]


def training_of(params: parameters.Params, stage: str) -> Training:
    """The section of a stage that can train.

    Raises:
        DarkroomError: it is of a kind that trains nothing.
    """
    section = getattr(params, stage)
    if not isinstance(section, Training):
        raise DarkroomError(f"{stage}.kind = {section.kind!r}: trains nothing; give a kind that does")
    return section


def _trains(annotation: Any) -> bool:
    """Whether a section can be one that trains."""
    return any(isinstance(kind, type) and issubclass(kind, Training) for kind in (annotation, *get_args(annotation)))


def _at_work(files: _Files, stage: str) -> psutil.Process:
    nobody = DarkroomError(
        f"{stage}: no training of it runs in this folder; start it with dvc repro, or set {stage}.{STOP_AT} before"
    )
    if not files.training.is_file():
        raise nobody
    noted = read_json(files.training)
    try:
        process = psutil.Process(int(noted["pid"]))
        there = process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - noted["since"]) < 1
    except (psutil.Error, KeyError, TypeError, ValueError):
        raise nobody from None
    if not there:
        raise nobody
    return process


def _wait(files: _Files, process: psutil.Process, stage: str, remind: Callable[[str], None]) -> Mapping[str, Any]:
    began, reminded = time.monotonic(), False
    while True:
        over = not files.training.exists() or not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        if files.answer.is_file():
            answer: Mapping[str, Any] = read_json(files.answer)
            return answer
        if over:
            files.asked.unlink(missing_ok=True)
            raise DarkroomError(f"{stage}: its training was over before it could be asked; it ended by itself")
        if not reminded and time.monotonic() - began > REMIND_AFTER:
            reminded = True
            stopped = process.status() == psutil.STATUS_STOPPED
            remind(
                f"{stage}: process {process.pid} is stopped; it answers once it continues (kill -CONT {process.pid})"
                if stopped
                else f"{stage}: waiting for its step to end (Ctrl-C takes the request back)"
            )
        time.sleep(LOOK_EVERY)
