"""A training that was ended early is a whole stage, and the same bytes can be made again: with the real dvc.

Catches: an end that only the process knew, so that params.yaml, dvc.lock or the run say something else; weights,
curves or the best step that differ from those of a training given the same end from its start, interrupted or not.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.support import recipe

STAGE, STEPS = "train_vae", 4000
LOCK, PARAMS = Path("dvc.lock"), Path("params.yaml")
COMMENT = "# whatever stands here stays"
PATIENCE = 600  # seconds, for machines with much else to do


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, copied_project: Callable[[Path], None], dvc_in: Any) -> Path:
    """A project whose pictures are prepared; the training that comes next is long."""
    project = tmp_path_factory.mktemp("finish") / "project"
    project.mkdir()
    copied_project(project)
    recipe.write(project / "recipes" / "scenes-quick.yaml", project / PARAMS)
    text = (project / PARAMS).read_text()
    values = yaml.safe_load(text)
    values[STAGE]["steps"], values[STAGE]["validate_every"] = STEPS, 1000
    (project / PARAMS).write_text(yaml.safe_dump(values) + COMMENT + "\n")
    dvc_in(project)("repro -s prepare_data")  # by its own code: the audit below asks which one ran
    return project


class Training:
    """dvc at work on the stage, or the stage alone."""

    def __init__(self, project: Path, environment: dict[str, str], *command: str) -> None:
        self.project = project
        self.said = project.with_name("said.txt")
        with self.said.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command], cwd=project, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    def until_it_trains(self) -> "Training":
        mark = self.project / ".checkpoints" / f"{STAGE}.training"
        end = time.monotonic() + PATIENCE
        while not mark.exists():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(1)
        return self

    def wait(self) -> None:
        assert self.process.wait(PATIENCE) == 0, self.said.read_text()[-3000:]


Start = Callable[..., Training]


@pytest.fixture
def start(environment_of: Callable[[Path], dict[str, str]]) -> Iterator[Start]:
    """(project, *command, settings) -> a process at work in it; none is left behind."""
    started: list[Training] = []

    def begin(project: Path, *command: str, **settings: str) -> Training:
        quiet = {f"DARKROOM_{name.upper()}": value for name, value in {**recipe.QUIET, **settings}.items()}
        started.append(Training(project, {**environment_of(project), **quiet}, *command))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            for process in psutil.Process(one.process.pid).children(recursive=True):
                process.kill()  # dvc killed alone would leave its stage at work
            one.process.kill()


def stop_at(project: Path) -> int:
    found = yaml.safe_load((project / PARAMS).read_text())[STAGE]["stop_at"]
    assert isinstance(found, int)
    return found


def forget_the_end(project: Path) -> None:
    values = yaml.safe_load((project / PARAMS).read_text())
    values[STAGE]["stop_at"] = None
    (project / PARAMS).write_text(yaml.safe_dump(values))


def test_a_finished_training_is_the_one_that_was_given_this_end(
    prepared: Path, start: Start, dvc_in: Any, darkroom_in: Any
) -> None:
    project, dvc = prepared, ["-m", "dvc", "repro", "-s", STAGE]
    before = (project / PARAMS).read_text().splitlines()
    running = start(project, *dvc, tracking="on").until_it_trains()
    said = darkroom_in(project)("finish", STAGE)
    running.wait()
    end = stop_at(project)
    assert f"ends after step {end} of {STEPS}" in said
    after = (project / PARAMS).read_text().splitlines()
    assert [line for line in after if line not in before] == [f"  stop_at: {end}"]
    assert len(after) == len(before)
    assert 0 < end < STEPS
    rows = (project / "reports" / STAGE / "curves.csv").read_text().splitlines()
    assert rows[-1].startswith(f"{end},")
    assert rows[-1].split(",")[rows[0].split(",").index("held_out/psnr")], "measured at its end"
    lock = (project / LOCK).read_bytes()
    assert yaml.safe_load(lock)["stages"][STAGE]["params"]["params.yaml"][STAGE]["stop_at"] == end
    assert f"{STAGE}:" not in dvc_in(project)(f"status {STAGE}").stdout
    runs = darkroom_in(project)("audit", STAGE, "--json")
    assert f'"{STAGE}.stop_at": {end}' in runs.replace(f'"{STAGE}.stop_at": "{end}"', f'"{STAGE}.stop_at": {end}')
    assert "contradicted" not in runs

    start(project, "-m", "dvc", "repro", "-f", "-s", STAGE).wait()
    assert (project / LOCK).read_bytes() == lock, "given from the start"


@pytest.mark.slow
def test_a_finished_training_that_was_interrupted_is_the_same(prepared: Path, start: Start, darkroom_in: Any) -> None:
    """In seconds, tests/chaos/test_kills.py interrupts trainings and tests/runner/test_finishing.py ends one."""
    project, command = prepared, ["-m", "dvc", "repro", "-f", "-s", STAGE]
    forget_the_end(project)
    running = start(project, *command).until_it_trains()
    darkroom_in(project)("finish", STAGE)
    running.wait()
    lock = (project / LOCK).read_bytes()
    broken = start(project, "-m", "dvc", "repro", "-f", "-s", STAGE).until_it_trains()
    for child in _stage_of(broken.process.pid):
        os.kill(child, signal.SIGTERM)
    broken.process.wait(PATIENCE)
    if broken.process.returncode:  # it may have been faster
        again = start(project, "-m", "dvc", "repro", "-f", "-s", STAGE)
        again.wait()
        assert "resuming from step" in again.said.read_text()
    assert (project / LOCK).read_bytes() == lock, "interrupted on its way there"


@pytest.mark.slow
def test_two_processes_end_after_the_same_step(prepared: Path, start: Start, darkroom_in: Any) -> None:
    """Catches a process that waits for ever for one that has ended, and an end that only the leading one knows."""
    forget_the_end(prepared)
    running = start(prepared, f"stages/{STAGE}.py", processes="2").until_it_trains()
    darkroom_in(prepared)("finish", STAGE)
    running.wait()
    rows = (prepared / "reports" / STAGE / "curves.csv").read_text().splitlines()
    assert rows[-1].startswith(f"{stop_at(prepared)},")


def _stage_of(dvc: int) -> list[int]:
    found = [p for p in psutil.Process(dvc).children(recursive=True) if f"stages/{STAGE}.py" in p.cmdline()]
    return [process.pid for process in found if process.name() not in ("sh", "bash")]
