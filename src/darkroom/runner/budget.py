"""`darkroom params budget`: how many steps of a training a given time holds, written to params.yaml before it starts.

A clock decides here, once, before anything is trained; what it decides is a parameter like any other.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darkroom.config import params as parameters
from darkroom.config.edit import Key, edit
from darkroom.config.params import PARAMS_FILE
from darkroom.config.stage_spec import stage_specs
from darkroom.core.artifact import read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.runner.finishing import check_trains, training_of
from darkroom.runner.lock import exclusive
from darkroom.runner.resuming import FOLDER, STOP_AT
from darkroom.training.engine.timing import TIMED, Timing

VARIABLE = "DARKROOM_TIMING"  # of the environment of a stage that is timed: the folder it works in
RESULT = "timing.json"
DIGITS = 2  # of the number of steps
LONGEST = 100_000_000  # steps
# What is counted in steps besides, and means nothing, or is refused, above their number.
COUNTED = (
    ("lr_schedule", "warmup_steps"),
    ("validate_every",),
    ("log_every",),
    ("sample_every",),
    ("adversarial", "start_step"),
    ("adversarial", "lr_schedule", "warmup_steps"),
    ("hard_negatives", "start_step"),
)


@dataclass(frozen=True)
class Budget:
    """What was measured and written.

    steps: written now. before: that stood there. every: steps between two measurements on held-out data or previews.
    changes: {"train_unet.validate_every": (old, new)} of what depended on the steps.
    """

    stage: str
    timing: Timing
    steps: int
    before: int
    every: int
    changes: Mapping[str, tuple[int | None, int | None]]

    @property
    def seconds(self) -> float:
        """What the training is expected to take, as a stage, but for what it writes at its end."""
        return seconds(self.timing, self.steps, self.every)


def budget(stage: str, minutes: float) -> Budget:
    """Time some steps of a stage's training and write how many fit into `minutes`.

    Raises DarkroomError: the stage trains nothing, something it needs is not there, or not even one step fits.
    """
    check_trains(stage)
    section = training_of(parameters.load(), stage).model_dump()
    _check_inputs(stage)
    with exclusive(stage, FOLDER / f"{stage}.lock"):  # two would share the machine, and the steps of one that runs stay
        timing = _time(stage)
        every = min(section[key] for key in ("validate_every", "sample_every") if key in section)
        steps = fitting(timing, 60 * minutes, every)
        if steps < 1:
            least = seconds(timing, 1, every) / 60
            raise DarkroomError(f"{minutes:g} minutes: too short for one step of {stage}; give {least:.2g} or more")
        wanted: dict[Key, int | None] = {(stage, "steps"): steps}
        changes: dict[str, tuple[int | None, int | None]] = {}
        for key, old, new in dependent(section, steps):
            wanted[stage, *key] = new
            changes[".".join((stage, *key))] = (old, new)
        edit(PARAMS_FILE, wanted)
        parameters.load()
    return Budget(stage, timing, steps, section["steps"], min(every, steps), changes)


def seconds(timing: Timing, steps: int, every: int) -> float:
    """What a stage takes until its training's end."""
    return timing.before + steps * timing.step + -(-steps // every) * timing.between


def fitting(timing: Timing, within: float, every: int) -> int:
    """The largest number of steps, of two digits and zeros, that takes at most `within` seconds; 0: not even one."""
    low, high = 0, LONGEST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if seconds(timing, middle, every) <= within else (low, middle - 1)
    unit = int(10 ** max(len(str(low)) - DIGITS, 0))
    return low // unit * unit


def dependent(section: Mapping[str, Any], steps: int) -> list[tuple[Key, int | None, int | None]]:
    """What must change with the number of steps: (key, old, new); what would lie above it keeps its share of it."""
    found: list[tuple[Key, int | None, int | None]] = []
    for key in COUNTED:
        value: Any = section
        for name in key:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, int) and value > steps:
            found.append((key, value, max(min(round(value * steps / section["steps"]), steps), 1)))
    if section[STOP_AT] is not None and section[STOP_AT] > steps:
        found.append(((STOP_AT,), section[STOP_AT], None))
    return found


def _check_inputs(stage: str) -> None:
    """Refuse to begin without what the stage reads, and name the stage that makes it."""
    stages = stage_specs()
    if stage not in stages:
        raise DarkroomError(f"dvc.yaml: has no stage {stage!r}")
    makers = {path: name for name, spec in stages.items() for path in spec.outputs}
    for path in stages[stage].inputs:
        if not path.exists():
            remedy = f"dvc repro {makers[path]}" if path in makers else "put it there"
            raise DarkroomError(f"{path}: is not there yet, and {stage} reads it; run first: {remedy}")


def _time(stage: str) -> Timing:
    """Run the stage's own script as far as is needed, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="darkroom_", ignore_cleanup_errors=True) as name:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
        done = subprocess.run(
            [sys.executable, "-P", f"stages/{stage}.py"],
            env={**kept, VARIABLE: name, "DARKROOM_TRACKING": "off"},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            raise DarkroomError(f"{stage} could not be timed: it ended with status {done.returncode}, as said above")
        try:
            return Timing(**read_json(Path(name) / RESULT))
        except DarkroomError:
            raise DarkroomError(
                f"{stage}: it trained fewer than {TIMED} steps, too few to time; give {stage}.steps: {TIMED} or more"
            ) from None


def keep(timing: Timing, folder: Path) -> None:
    """Of the stage that is timed: hand on what was measured."""
    write_json(folder / RESULT, asdict(timing))
