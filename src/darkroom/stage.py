"""What every script in stages/ shares: parameters, device, tracking, errors, summary."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from darkroom import demands
from darkroom import params as parameters
from darkroom.copies import PROFILE, link_what_is_outside, reproduction, run_own_code
from darkroom.core import device as devices
from darkroom.core.artifact import write_json
from darkroom.core.checkpoint import FULL, Checkpoints
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import Interrupted, Interruption
from darkroom.guard import alone, die_with_dvc
from darkroom.project import place
from darkroom.resuming import FOLDER, clear_recorded, fingerprint, mark_done
from darkroom.tracking import Run, stage_run
from darkroom.tracking.address import is_server, location, project_root
from darkroom.tracking.note import Account, figure, readable_size
from darkroom.training.distributed import ALONE, Processes
from darkroom.workers import Worker, leading

KILLED_BY = 128  # a process ended by signal n exits with 128 + n

Figures = Mapping[str, float | str]


@dataclass(frozen=True)
class Work:
    """What a stage works with.

    run: is told of everything. checkpoints: of its training. processes: who take part in that.
    """

    device: torch.device
    run: Run
    checkpoints: Checkpoints = field(default_factory=Checkpoints.none)
    processes: Processes = ALONE


Body = Callable[[parameters.Params, Work], Figures]


def run_stage(stage: str, body: Body, trains: bool = False) -> NoReturn:
    """Run a stage and exit: 0 when its outputs are written, 1 with one line on stderr for an error the user can mend.

    `body(params, work)` gets all parameters, validated, does the work, writes the outputs named in dvc.yaml and
    returns its key figures for the summary.

    trains: there is one training in it, which several processes can share.
    """
    interruption, worker = Interruption(), Worker.here()
    try:
        if worker is not None:
            _take_part(stage, body, worker)
        else:
            interruption.listen()
            _run(stage, body, trains, interruption)
    except DarkroomError as error:
        who = f"{stage}: worker {worker.rank}" if worker is not None else stage
        print(f"darkroom: {who}: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(f"darkroom: {stage}: {error}; make room, or mend the permissions, and run again", file=sys.stderr)
        sys.exit(1)
    except Interrupted as end:
        print(f"darkroom: {stage}: ended by {end}: {_how_on(end.saved)}", file=sys.stderr)
        sys.exit(KILLED_BY + end.number)
    sys.exit(0)


def _take_part(stage: str, body: Body, worker: Worker) -> None:
    """The body as far as its training, beside the process that leads."""
    with worker.at_work(place(stage).outputs):
        device = devices.start(rank=worker.rank, processes=worker.size)
        profile = devices.execution_profile(device, worker.size)
        checkpoints = Checkpoints(worker.training, profile, 0, 0, Interruption())
        processes = Processes(worker.rank, worker.size, device, worker)
        untold = Run(Account(stage, {}, {}, {}, {}, "", False), tracked=False)
        body(parameters.load(), Work(device, untold, checkpoints, processes))


def _run(stage: str, body: Body, trains: bool, interruption: Interruption) -> None:
    began = time.monotonic()
    run_own_code()
    params = parameters.load()
    link_what_is_outside(params)
    settings = devices.runtime()
    n_processes = settings.processes if trains else 1
    here = place(stage)
    die_with_dvc()
    with alone(stage, FOLDER / f"{stage}.lock"):
        again = reproduction()
        root = again or project_root()
        clear_recorded(root)
        device = devices.start(settings, processes=n_processes)
        profile = devices.execution_profile(device, n_processes)
        if again is not None:
            write_json(again / PROFILE, profile)
        chosen = {key: _lookup(params.model_dump(), key) for key in here.params}
        inputs, code = here.input_hashes(), here.code_hashes()
        training = root / FOLDER / stage / fingerprint(stage, here.cmd, chosen, inputs, code)
        checkpoints = Checkpoints(
            training, profile, settings.checkpoint_minutes, settings.checkpoint_steps, interruption
        )
        with stage_run(stage, chosen, inputs, code, here.outputs, profile) as run:
            remarks = demands.met_at_start(params, stage, here.inputs)
            processes = leading(n_processes, device, training)
            figures = {**body(params, Work(device, run, checkpoints, processes)), **remarks}
            for path in here.outputs:
                if not path.exists():
                    raise DarkroomError(f"{path} was not written")
            if checkpoints.resumed is not None:
                run.tag("resumed.from_step", str(checkpoints.resumed))
            run.summary(figures)
        mark_done(training, here.outputs)
    print(_summary(stage, time.monotonic() - began, here.outputs, figures, run.address), flush=True)


def _how_on(saved: str) -> str:
    if reproduction() is not None:
        return "darkroom reproduce starts it again, from its beginning"
    if saved:
        return f"{saved}; dvc repro goes on from there"
    return "dvc repro starts it again, at its last checkpoint if it has one"


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
