"""What every script in stages/ shares: parameters, device, tracking, errors, summary."""

import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from darkroom import params as parameters
from darkroom.core import device as devices
from darkroom.core.errors import DarkroomError
from darkroom.project import place
from darkroom.tracking import Run, stage_run
from darkroom.tracking.note import figure, readable_size
from darkroom.tracking.store import is_server, location

KILLED_BY = 128  # a process ended by signal n exits with 128 + n

Figures = Mapping[str, float | str]
Body = Callable[[parameters.Params, torch.device, Run], Figures]


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the work stands so that everything is left in order."""


def run_stage(stage: str, body: Body) -> NoReturn:
    """Run a stage and exit: 0 when its outputs are written, 1 with one line on stderr for an error the user can mend.

    `body(params, device, run)` gets all parameters, validated, does the work, writes the outputs named in dvc.yaml and
    returns its key figures for the summary.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _run(stage, body)
    except DarkroomError as error:
        print(f"darkroom: {stage}: {error}", file=sys.stderr)
        sys.exit(1)
    except Terminated:
        print(f"darkroom: {stage}: terminated", file=sys.stderr)
        sys.exit(KILLED_BY + signal.SIGTERM)
    except KeyboardInterrupt:
        print(f"darkroom: {stage}: interrupted", file=sys.stderr)
        sys.exit(KILLED_BY + signal.SIGINT)
    sys.exit(0)


def _run(stage: str, body: Body) -> None:
    began = time.monotonic()
    params = parameters.load()
    here = place(stage)
    device = devices.start()
    chosen = {key: _lookup(params.model_dump(), key) for key in here.params}
    with stage_run(stage, chosen, here.inputs, here.code, here.outputs, devices.execution_profile(device)) as run:
        figures = body(params, device, run)
        for path in here.outputs:
            if not path.exists():
                raise DarkroomError(f"{path} was not written")
        run.summary(figures)
    print(_summary(stage, time.monotonic() - began, here.outputs, figures, run.address), flush=True)


def _terminate(number: int, frame: Any) -> None:
    raise Terminated


def _lookup(params: Any, key: str) -> Any:
    for part in key.split("."):
        params = params[part]
    return params


def _summary(stage: str, seconds: float, outputs: list[Path], figures: Figures, address: str | None) -> str:
    lines = [f"{stage}: done in {seconds:.0f} s"]
    for path in outputs:
        size = sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size
        lines.append(f"  wrote {path} ({readable_size(size)})")
    lines += [f"  {name}: {figure(value)}" for name, value in figures.items()]
    if address:
        lines.append(f"  run: {address}" + ("" if is_server(location()) else " (while `make ui` runs)"))
    return "\n".join(lines)
