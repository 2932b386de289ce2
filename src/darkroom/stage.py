"""What every script in stages/ shares: parameters, device, tracking, errors, summary."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from darkroom import params as parameters
from darkroom.copies import link_what_is_outside, run_own_code
from darkroom.core import device as devices
from darkroom.core.checkpoint import FULL, Checkpoints
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import Interrupted, Interruption
from darkroom.guard import alone, die_with_dvc
from darkroom.project import place
from darkroom.resuming import FOLDER, clear_recorded, fingerprint, mark_done
from darkroom.tracking import Run, stage_run
from darkroom.tracking.note import figure, readable_size
from darkroom.tracking.store import is_server, location, project_root

KILLED_BY = 128  # a process ended by signal n exits with 128 + n

Figures = Mapping[str, float | str]


@dataclass(frozen=True)
class Work:
    """What a stage works with: a device, a run that is told of everything, and the checkpoints of its training."""

    device: torch.device
    run: Run
    checkpoints: Checkpoints = field(default_factory=Checkpoints.none)


Body = Callable[[parameters.Params, Work], Figures]


def run_stage(stage: str, body: Body) -> NoReturn:
    """Run a stage and exit: 0 when its outputs are written, 1 with one line on stderr for an error the user can mend.

    `body(params, work)` gets all parameters, validated, does the work, writes the outputs named in dvc.yaml and
    returns its key figures for the summary.
    """
    interruption = Interruption()
    interruption.listen()
    try:
        _run(stage, body, interruption)
    except DarkroomError as error:
        print(f"darkroom: {stage}: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(f"darkroom: {stage}: {error}; make room, or mend the permissions, and run again", file=sys.stderr)
        sys.exit(1)
    except Interrupted as end:
        how_on = f"{end.saved}; dvc repro goes on from there" if end.saved else "dvc repro starts it again"
        print(f"darkroom: {stage}: ended by {end}: {how_on}", file=sys.stderr)
        sys.exit(KILLED_BY + end.number)
    sys.exit(0)


def _run(stage: str, body: Body, interruption: Interruption) -> None:
    began = time.monotonic()
    run_own_code()
    params = parameters.load()
    link_what_is_outside(params)
    settings = devices.runtime()
    here = place(stage)
    die_with_dvc()
    with alone(stage, FOLDER / f"{stage}.lock"):
        root = project_root()
        clear_recorded(root)
        device = devices.start(settings)
        profile = devices.execution_profile(device)
        chosen = {key: _lookup(params.model_dump(), key) for key in here.params}
        inputs, code = here.input_hashes(), here.code_hashes()
        training = root / FOLDER / stage / fingerprint(stage, here.cmd, chosen, inputs, code)
        checkpoints = Checkpoints(
            training, profile, settings.checkpoint_minutes, settings.checkpoint_steps, interruption
        )
        with stage_run(stage, chosen, inputs, code, here.outputs, profile) as run:
            figures = body(params, Work(device, run, checkpoints))
            for path in here.outputs:
                if not path.exists():
                    raise DarkroomError(f"{path} was not written")
            if checkpoints.resumed is not None:
                run.tag("resumed.from_step", str(checkpoints.resumed))
            run.summary(figures)
        mark_done(training, here.outputs)
    print(_summary(stage, time.monotonic() - began, here.outputs, figures, run.address), flush=True)


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
