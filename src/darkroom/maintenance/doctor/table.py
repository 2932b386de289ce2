"""The checks in their order, and running them side by side: none raises, and none keeps the others waiting."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from darkroom.config.stage_spec import PIPELINE
from darkroom.maintenance.doctor import (
    dvc_checks,
    git_checks,
    installation,
    machine,
    project_checks,
    tracking_checks,
)
from darkroom.maintenance.doctor.result import Result, problem
from darkroom.tracking.secrets import first_line, without_secrets

DEADLINE = 70.0  # seconds that one check may take


@dataclass(frozen=True)
class Check:
    """of_project: it asks about the project, and means nothing outside of one."""

    name: str
    look: Callable[[], Iterable[Result]]
    of_project: bool = True


CHECKS = (
    Check("python", installation.check_python, of_project=False),
    Check("packages", installation.check_packages, of_project=False),
    Check("extras", installation.check_extras, of_project=False),
    Check("devices", machine.check_devices, of_project=False),
    Check("memory", machine.check_memory, of_project=False),
    Check("disk", machine.check_disk, of_project=False),
    Check("git", git_checks.check_git),
    Check("dvc", dvc_checks.check_dvc),
    Check("dvc cache", dvc_checks.check_cache),
    Check("dvc lock", dvc_checks.check_locks),
    Check("dvc remote", dvc_checks.check_remotes),
    Check("mlflow", tracking_checks.check_tracking),
    Check("parameters", project_checks.check_parameters),
    Check("data", project_checks.check_data),
    Check("checkpoints", project_checks.check_checkpoints),
)


@dataclass
class _Running:
    check: Check
    results: list[Result] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._look, name=self.check.name, daemon=True)
        self.thread.start()

    def _look(self) -> None:
        try:
            self.results += self.check.look()
        except Exception as error:  # a fault of the check, or of what it looked at: it is told, like any other
            what = f"could not be looked at ({type(error).__name__}: {first_line(error)})"
            self.results.append(problem(self.check.name, what))


def examine(checks: Sequence[Check] = CHECKS) -> list[Result]:
    """What all checks find in the current folder, in their order."""
    in_project = PIPELINE.is_file()
    running = [_Running(check) for check in checks if in_project or not check.of_project]
    deadline = time.monotonic() + DEADLINE
    found = []
    for one in running:
        one.thread.join(max(deadline - time.monotonic(), 0))
        found += one.results
        if one.thread.is_alive():
            found.append(problem(one.check.name, f"gave no answer within {DEADLINE:.0f} s"))
    if not in_project:
        remedy = "go to the project's folder, or make one: darkroom new NAME"
        found.append(problem("project", f"{PIPELINE}: not there: this folder is not a project", remedy))
    return [
        Result(one.check, one.state, *(without_secrets(text) for text in (one.found, one.remedy, one.command)))
        for one in found
    ]
