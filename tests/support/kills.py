"""Runs `dvc repro`, ends it in the middle in various ways, and keeps account of what became of it."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

COMMAND = "repro --no-run-cache"
KINDS = ("kill -9 of all", "kill -9 of dvc", "kill -9 of the stage", "SIGTERM to the stage", "Ctrl-C")
GENTLE = ("SIGTERM to the stage", "Ctrl-C", "kill -9 of dvc")  # the stage comes to an end of its own
OF_THE_STAGE = {"kill -9 of the stage": signal.SIGKILL, "SIGTERM to the stage": signal.SIGTERM}
WORKERS = float(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # who test beside this process
GONE_WITHIN = 10.0  # seconds after the signal, on a machine that has nothing else to do
STAGE_STARTS_WITHIN = 60.0
LOOK_EVERY = 0.005
BEGINS = re.compile(r"Running stage '(\w+)'")
STEPS = re.compile(r"(\d+)/(\d+) steps  ")
RESUMED = re.compile(r"resuming from step (\d+)")
TAIL = 3000  # characters of what was said that a failure shows

# In a stage, a line for every step, so that it is known which one was the last.
TRACE = """
import os
if "DVC_STAGE" in os.environ:
    from darkroom.core import progress
    progress.LINE_EVERY = 0.0
"""


def traced(environment: Mapping[str, str], folder: Path, **settings: str) -> dict[str, str]:
    """An environment in which stages say every step; settings: DARKROOM_… variables, in lower case, without that."""
    (folder / "trace").mkdir(exist_ok=True)
    (folder / "trace" / "sitecustomize.py").write_text(TRACE)
    return {
        **environment,
        **{f"DARKROOM_{name.upper()}": value for name, value in settings.items()},
        "PYTHONPATH": f"{folder / 'trace'}{os.pathsep}{environment['PYTHONPATH']}",
        "PYTHONUNBUFFERED": "1",
    }


class Repro:
    """A `dvc repro` under way, in a session of its own.

    stage: the latest that began, empty before. step, of: the last it has said to be done, and of how many. resumed:
    {stage: the step it went on from}, 0 where it began anew. began: {stage: when}, of time.monotonic().
    """

    def __init__(self, project: Path, environment: Mapping[str, str], command: str = COMMAND) -> None:
        self.project = project
        self.stage, self.step, self.of = "", 0, 0
        self.resumed: dict[str, int] = {}
        self.began: dict[str, float] = {}
        self.said = ""
        log = project.parent / f"{project.name}.log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dvc", *command.split()],
                cwd=project,
                env=dict(environment),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._log = log.open(encoding="utf-8", errors="replace")
        self._rest = ""

    def look(self) -> bool:
        """Take in what it said; whether it still runs."""
        runs = self.process.poll() is None
        *lines, self._rest = (self._rest + self._log.read()).split("\n")
        for line in lines:
            self.said += line + "\n"
            if found := BEGINS.search(line):
                self.stage, self.step = found[1], 0
                self.began[self.stage] = time.monotonic()
            elif found := RESUMED.search(line):
                self.resumed[self.stage] = self.step = int(found[1])
            elif found := STEPS.search(line):
                self.resumed.setdefault(self.stage, 0)
                self.step, self.of = int(found[1]), int(found[2])
        return runs

    def until(self, reached: Callable[[], bool]) -> bool:
        """Wait for `reached`; False if it came to its end, which must be a good one, before."""
        while self.look():
            if reached():
                return True
            time.sleep(LOOK_EVERY)
        self.look()
        assert self.process.returncode == 0, self.said[-TAIL:]
        return False

    def finish(self) -> "Repro":
        """Wait for its end."""
        self.until(lambda: False)
        return self

    def kill(self, kind: str) -> str | None:
        """End it; in which stage it was, or None where it had ended before."""
        target = None
        if kind in OF_THE_STAGE:
            deadline = time.monotonic() + STAGE_STARTS_WITHIN
            while target is None and self.look() and time.monotonic() < deadline:
                target = self._stage_process()
            if target is None:
                return None
        if not self.look():
            return None
        stage = self.stage
        with suppress(psutil.NoSuchProcess):
            if target is not None:
                target.send_signal(OF_THE_STAGE[kind])
            elif kind == "kill -9 of dvc":
                self.process.kill()
            else:
                os.killpg(self.process.pid, signal.SIGINT if kind == "Ctrl-C" else signal.SIGKILL)
        self._watch_it_go(target)
        self.look()
        return stage

    def _stage_process(self) -> psutil.Process | None:
        with suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                command = process.cmdline()
                if any(part.startswith("stages/") for part in command):
                    return process
        return None

    def _watch_it_go(self, target: psutil.Process | None) -> None:
        """Nothing is left in the project's folder soon after."""
        asked, within = time.monotonic(), GONE_WITHIN * max(WORKERS, os.getloadavg()[0] / (os.cpu_count() or 1))
        while (left := at_work(self.project)) or self.process.poll() is None:
            if time.monotonic() - asked > within:
                if target is not None and not target.is_running() and self.process.poll() is None:
                    os.killpg(self.process.pid, signal.SIGKILL)  # it was about to end well, and dvc went on
                    self.process.wait()
                    continue
                self.look()
                raise AssertionError(f"still there after {within:.0f} s: {left}\n{self.said[-TAIL:]}")
            time.sleep(0.05)


def at_work(project: Path) -> list[str]:
    """The commands of all processes in a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(project):
                found.append(f"{process.pid}: {' '.join(process.cmdline())}")
    return found


@dataclass(frozen=True)
class Moment:
    """When a stage is to be ended: so many seconds after its beginning, or once it has done so many steps."""

    stage: str
    kind: str
    seconds: float = 0.0
    step: int = 0


@dataclass
class Account:
    """What was survived. losses: {stage: steps done that had to be done again, one value for each time it went on};
    gentle: those of trainings that were ended in a GENTLE way.
    """

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    losses: dict[str, list[int]] = field(default_factory=dict)
    gentle: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.kills.values())

    def table(self, stages: Sequence[str]) -> str:
        """Kills by stage and kind, and the longest losses."""
        rows = [["stage", *KINDS, "longest loss in steps"]]
        for stage in ("", *stages):
            counts = [self.kills[stage, kind] for kind in KINDS]
            if stage or any(counts):
                lost = max(self.losses.get(stage, []), default=None)
                rows.append([stage or "before the first", *map(str, counts), "" if lost is None else str(lost)])
        sums = [str(sum(self.kills[stage, kind] for stage in ("", *stages))) for kind in KINDS]
        rows.append(["all", *sums, str(max((max(v) for v in self.losses.values()), default=0))])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing ended. seconds: {stage: from its beginning to the next one's}, in the order of the stages."""

    project: Path
    seconds: dict[str, float]
    results: dict[str, bytes]

    @classmethod
    def run(cls, project: Path, environment: Mapping[str, str]) -> "Undisturbed":
        repro = Repro(project, environment).finish()
        edges = [*repro.began.values(), time.monotonic()]
        lengths = [after - before for before, after in pairwise(edges)]
        return cls(project, dict(zip(repro.began, lengths, strict=True)), results(project))

    def moments(self, draw: random.Random, stages: Sequence[str]) -> list[Moment]:
        """A random moment in each of `stages`, which may name one twice; the kinds take turns."""
        kinds = [kind for _ in range(-(-len(stages) // len(KINDS))) for kind in draw.sample(KINDS, len(KINDS))]
        ordered = sorted(stages, key=list(self.seconds).index)
        return [
            Moment(stage, kind, seconds=draw.uniform(0, self.seconds[stage]))
            for stage, kind in zip(ordered, kinds, strict=False)
        ]

    def disturb(
        self, project: Path, environment: Mapping[str, str], moments: Sequence[Moment], account: Account
    ) -> None:
        """The same in another folder, ended at each of the moments and continued to the end.

        Raises:
            AssertionError: the results differ, or something is left over.
        """
        order, reached, left = list(self.seconds), dict[str, int](), dict[str, int]()

        def learn(repro: Repro) -> None:
            for stage, step in repro.resumed.items():
                if reached.get(stage):
                    account.losses.setdefault(stage, []).append(max(reached[stage] - step, 0))
                if stage in left:
                    account.gentle.append(max(left.pop(stage) - step, 0))
            if repro.stage:
                reached[repro.stage] = max(reached.get(repro.stage, 0), repro.step)

        for moment in moments:
            repro = Repro(project, environment)
            late = order[order.index(moment.stage) :]

            def is_due(repro: Repro = repro, moment: Moment = moment, late: Sequence[str] = late) -> bool:
                began = next((repro.began[stage] for stage in late if stage in repro.began), None)
                if began is None:
                    return False
                passed = repro.stage != moment.stage or repro.step >= moment.step
                return passed and time.monotonic() - began >= moment.seconds

            stage = repro.kill(moment.kind) if repro.until(is_due) else None
            learn(repro)
            if stage is None:
                break
            account.kills[stage, moment.kind] += 1
            if moment.kind in GENTLE and 0 < repro.step < repro.of:  # in the middle of a training
                left[stage] = repro.step
            print(f"{account.total:4}  {moment.kind:21} {stage:19} after step {repro.step}", flush=True)
        learn(Repro(project, environment).finish())
        found = results(project)
        assert found.keys() == self.results.keys()
        assert [name for name in found if found[name] != self.results[name]] == [], "differ from the undisturbed run"
        assert [path for path in project.rglob("*.partial") if path.parts[-2] != "tmp"] == []


def results(project: Path) -> dict[str, bytes]:
    """The lock file and all numbers of the reports, {name: bytes}."""
    files = [project / "dvc.lock", *project.glob("reports/**/*.json"), *project.glob("reports/**/*.csv")]
    return {file.relative_to(project).as_posix(): file.read_bytes() for file in files}
