"""How long a rebuild will still take: from how long its stages took before, on this machine. For eyes only.

Each stage keeps the times of its latest runs in .checkpoints/STAGE.times.json, which is neither an output nor a
dependency.
"""

import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from darkroom.config.lock_file import LockedStage, read_lock
from darkroom.config.params import Params
from darkroom.config.stage_spec import StageSpec, is_made, makers, stage_specs
from darkroom.core.artifact import write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import Ahead, about
from darkroom.runner.differences import Comparison
from darkroom.runner.lock import parent_dvc
from darkroom.runner.resuming import FOLDER
from darkroom.tracking.address import project_root

KEPT = 8  # runs of a stage
COUNTED = 3  # of those, whose median is the estimate
# What does not change how long a step takes.
FREE = {
    *("seed", "steps", "stop_at", "ema_half_life", "lr_schedule"),
    *("learning_rate", "betas", "weight_decay", "clip_norm"),
}
MACHINE = ("device", "threads", "processes")  # of an execution profile
WITH_VALUE = ("-j", "--jobs", "-n", "--name", "-S", "--set-param", "-C", "--copy-paths", "-m", "--message")  # of dvc


@dataclass(frozen=True)
class Times:
    """One run of a stage.

    key: of what it was, as far as that makes it slow. dvc: which dvc ran it. seconds: in all. training: of those, in
    the training, for `steps` steps. There are none where it trains nothing.
    """

    key: str
    dvc: str
    seconds: float
    training: float
    steps: int


def start_outlook(stage: str, params: Params, here: StageSpec, profile: Mapping[str, str]) -> "StageOutlook | None":
    """Say how long the rebuild that `stage` is part of will take, and let its progress say so; None outside dvc."""
    Ahead.outlook = None
    dvc = parent_dvc() if "DVC_STAGE" in os.environ else None
    if dvc is None:
        return None
    try:
        outlook = StageOutlook(stage, params, stage_specs(), profile, dvc)
    except (psutil.Error, OSError, ValueError, KeyError, TypeError, AttributeError, DarkroomError):
        return None  # whatever is wrong there, others say so; it is only an outlook
    Ahead.outlook = outlook
    print(f"{stage}: {outlook.at_start()}", file=sys.stderr, flush=True)
    return outlook


class StageOutlook:
    """What is known of the stages that a dvc still runs; see `core.progress.Outlook`."""

    def __init__(
        self,
        stage: str,
        params: Params,
        stages: Mapping[str, StageSpec],
        profile: Mapping[str, str],
        dvc: psutil.Process,
    ) -> None:
        self.stage, self._params, self._profile = stage, params, profile
        self._dvc = f"{dvc.pid} {dvc.create_time():.2f}"
        self._began = time.monotonic()
        self._folder = project_root() / FOLDER
        self._steps = self._trained = self._idle = 0.0
        asked = DvcCommand.of(dvc.cmdline())
        self._later = [] if asked.single else still_to_run(stage, stages, asked.targets)
        done = sum(any(t.dvc == self._dvc for t in self._times(s)) for s in stages if s not in (stage, *self._later))
        self._position = f"stage {done + 1} of {done + 1 + len(self._later)}"
        self._stage_seconds = self._estimate(stage)
        expected = {later: self._estimate(later) for later in self._later}
        self._unknown = [later for later, seconds in expected.items() if seconds is None]
        self._after = sum(seconds for seconds in expected.values() if seconds is not None)

    def at_start(self) -> str:
        unknown = [*([] if self._stage_seconds is not None else [self.stage]), *self._unknown]
        known = self._after + (self._stage_seconds or 0.0)
        if not unknown:
            return f"{self._position}, {about(known)} left in all"
        never = f"not timed here yet: {', '.join(unknown)}"
        return f"{self._position}, {f'{about(known)} left without those ' if known else ''}{never}"

    def in_all(self, left: float | None, training: bool) -> str:
        active = time.monotonic() - self._began - self._idle
        if training and left is not None:
            stage_left = left + self._rest(self._times(self.stage))
        elif self._stage_seconds is None:
            return self._position
        else:
            stage_left = max(self._stage_seconds - active, left or 0.0, 0.0)
        without = f"; not timed here yet: {', '.join(self._unknown)}" if self._unknown else ""
        return f"{self._position}, {about(stage_left + self._after)} left in all{without}"

    def trained(self, steps: int, seconds: float) -> None:
        self._steps, self._trained = self._steps + steps, self._trained + seconds

    def stopped(self, seconds: float) -> None:
        self._idle += seconds

    def record(self, seconds: float) -> None:
        """Keep how long the stage took, for later estimates; `seconds`: in all. Never raises."""
        now = Times(self._key(self.stage), self._dvc, seconds - self._idle, self._trained, int(self._steps))
        latest = [*self._times(self.stage), now][-KEPT:]
        try:
            write_json(self._file(self.stage), [asdict(times) for times in latest])
        except (OSError, DarkroomError):
            return

    def _estimate(self, stage: str) -> float | None:
        """Seconds that a stage takes; None where nothing like it was run here."""
        key = self._key(stage)
        alike = [times for times in self._times(stage) if times.key == key][-COUNTED:]
        steps = self._steps_of(stage)
        if not alike:
            return None
        if not steps or not any(times.steps for times in alike):
            return statistics.median(times.seconds for times in alike)
        each = statistics.median(times.training / times.steps for times in alike if times.steps)
        return self._rest(alike) + each * steps

    @staticmethod
    def _rest(alike: Sequence[Times]) -> float:
        return statistics.median(times.seconds - times.training for times in alike) if alike else 0.0

    def _steps_of(self, stage: str) -> int | None:
        section = getattr(self._params, stage, None)
        steps = getattr(section, "steps", None)
        return getattr(section, "stop_at", None) or steps

    def _key(self, stage: str) -> str:
        sections = self._params.model_dump()
        made_of = {name: _costly(sections[name]) for name in ("prepare_data", stage) if name in sections}
        machine = {name: self._profile.get(name) for name in MACHINE}
        return hashlib.md5(json.dumps([made_of, machine], sort_keys=True).encode()).hexdigest()

    def _times(self, stage: str) -> list[Times]:
        try:
            return [Times(**entry) for entry in json.loads(self._file(stage).read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def _file(self, stage: str) -> Path:
        return self._folder / f"{stage}.times.json"


@dataclass(frozen=True)
class DvcCommand:
    """What a dvc was asked for: stages, none for all; single: those alone."""

    targets: Sequence[str]
    single: bool

    @classmethod
    def of(cls, command: Sequence[str]) -> "DvcCommand":
        """From its command line."""
        words = list(command)
        at = next((i for i, word in enumerate(words) if word in ("repro", "run")), len(words) - 1)
        targets, skip = [], False
        for word in words[at + 1 :]:
            if not skip and not word.startswith("-"):
                targets.append(word)
            skip = word in WITH_VALUE
        flags = {word for word in words[at + 1 :] if word.startswith("-")}
        return cls(targets, bool(flags & {"-s", "--single-item"}))


def still_to_run(stage: str, stages: Mapping[str, StageSpec], targets: Sequence[str]) -> list[str]:
    """The stages that dvc will run after `stage`, as far as is known without hashing data: what builds on it, and
    what differs from dvc.lock in its parameters, its code or its outputs, and what builds on that.
    """
    lock, comparison = read_lock(), Comparison()
    behind = {name: set(makers(spec, stages)) for name, spec in stages.items()}
    made = [path for spec in stages.values() for path in spec.outputs]
    wanted = _with_all_behind([target for target in targets if target in stages] or list(stages), behind)
    stale = {stage} | {
        name for name in wanted if name != stage and _differs(stages[name], lock.get(name), made, comparison)
    }
    found = len(stale) - 1
    while found < len(stale):
        found = len(stale)
        stale |= {name for name in wanted if behind[name] & stale}
    before = _with_all_behind([stage], behind) - {stage}  # those are through: dvc would not be here else
    return [name for name in stages if name in stale and name in wanted and name not in before | {stage}]


def _with_all_behind(names: Sequence[str], behind: Mapping[str, set[str]]) -> set[str]:
    found, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += behind[name]
    return found


def _differs(spec: StageSpec, locked: LockedStage | None, made: Sequence[Path], comparison: Comparison) -> bool:
    """Whether a stage is out of date by itself, whatever those before it do. made: what stages make: not hashed."""
    if locked is None or not all(path.exists() for path in spec.outputs):
        return True
    spared = {*spec.outputs, *(path for path in spec.inputs if is_made(path, made))}
    return bool(comparison.differences(spec, locked, spared))


def _costly(section: Any) -> Any:
    """A section without what changes no time."""
    if isinstance(section, Mapping):
        return {key: _costly(value) for key, value in section.items() if key not in FREE}
    return section
