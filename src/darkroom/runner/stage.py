"""What every script in stages/ shares: parameters, device, tracking, errors, summary."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from darkroom.config import params as parameters
from darkroom.config.paths import MANIFESTS
from darkroom.config.stage_spec import StageSpec, check_not_linked, stage_spec
from darkroom.config.training import Training
from darkroom.core import device as devices
from darkroom.core.artifact import write_json
from darkroom.core.checkpoint import FULL, Checkpoints, keep_latest
from darkroom.core.errors import DarkroomError
from darkroom.core.interruption import Interrupted, Interruption
from darkroom.core.output_shards import Shards
from darkroom.core.progress import readable_size
from darkroom.core.text import printable_text
from darkroom.planning import demands
from darkroom.project.kept import forget
from darkroom.runner.budget import VARIABLE, keep
from darkroom.runner.finishing import Finish, differences
from darkroom.runner.launch import LOST, NODES, Rank, launch, report
from darkroom.runner.lock import exclusive, exit_with_dvc
from darkroom.runner.out_of_memory import explain_shortages, peak
from darkroom.runner.outlook import start_outlook
from darkroom.runner.project_copy import PROFILE, link, link_untracked, reproduction, run_own_code
from darkroom.runner.resuming import (
    FOLDER,
    STOP_AT,
    chosen_params,
    clear_recorded,
    lookup,
    mark_done,
    training_fingerprint,
    without_end,
)
from darkroom.tracking import Run, stage_run
from darkroom.tracking.address import project_root
from darkroom.tracking.executed_code import ExecutedCode
from darkroom.tracking.note import Account, figure
from darkroom.tracking.outputs import is_kept
from darkroom.tracking.ports import link_hint
from darkroom.tracking.secrets import first_line
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.distributed import ALONE, LostError, Processes
from darkroom.training.engine.ending import Ending
from darkroom.training.engine.timing import MeasuredError, Stopwatch

MIB = 2**20
KILLED_BY = 128  # a process ended by signal n exits with 128 + n

Figures = Mapping[str, float | str]


@dataclass(frozen=True)
class Work:
    """What a stage works with.

    run: what the stage tracks. checkpoints: of its training. processes: who take part in that. ending: of `steps` and
    `stop_at` makes where the training ends. shards: makes what of its output can be made in any order.
    """

    device: torch.device
    run: Run
    checkpoints: Checkpoints = field(default_factory=Checkpoints.none)
    processes: Processes = ALONE
    ending: Callable[[int, int | None], Ending] = Ending
    shards: Shards = field(default_factory=Shards)

    def context(self, section: Training) -> TrainingContext:
        """What the losses of a training share."""
        return TrainingContext(section.batch_size, section.seed, section.precision, self.device, self.processes)


Body = Callable[[parameters.Params, Work], Figures]


def run_stage(stage: str, body: Body, trains: bool = False, divides: bool = False) -> NoReturn:
    """Run a stage and exit: 0 when its outputs are written, 1 with one line on stderr for an error the user can fix.

    `body(params, work)` gets all parameters, validated, does the work, writes the outputs named in dvc.yaml and
    returns its key figures for the summary.

    trains: there is one training in it, which several processes can share. divides: it computes its output shard by
        shard, which several processes, or Ray, can do.
    """
    interruption = Interruption()
    try:
        interruption.listen()
        _start(stage, body, (trains, divides), interruption)
    except LostError as error:  # the launcher, if there is one, knows who was lost
        report(f"darkroom: {stage}: {printable_text(error)}")
        sys.exit(LOST)
    except DarkroomError as error:
        here = Rank.here()
        who = f"{stage}: worker {here.rank}" if here is not None and here.rank > 0 else stage
        report(f"darkroom: {who}: {printable_text(error)}")
        sys.exit(1)
    except OSError as error:
        if error.errno not in FULL:
            raise
        report(f"darkroom: {stage}: {printable_text(error)}; make room, or correct the permissions, and run again")
        sys.exit(1)
    except Interrupted as end:
        report(f"darkroom: {stage}: ended by {end}: {_how_to_resume(end.saved)}")
        sys.exit(KILLED_BY + end.number)
    sys.exit(0)


def _start(stage: str, body: Body, kind: tuple[bool, bool], interruption: Interruption) -> None:
    """The stage, or what this process has to do in it; kind: whether it trains, and divides its output."""
    trains, divides = kind
    run_own_code()
    params = parameters.load()
    link_untracked(params)
    settings, here = devices.runtime(), Rank.here()
    shares = trains and isinstance(getattr(params, stage), Training)  # a network that is taken over is not trained
    if here is None and shares and (settings.processes > 1 or NODES in os.environ):
        exit_with_dvc()
        launch(settings.processes)
    if here is not None and here.rank > 0 and not shares:
        return
    if here is None or not shares:
        exit_with_dvc()
        helpers = settings.processes if divides and not settings.ray else 1
        device = devices.start(settings.for_tasks() if divides else settings, processes=helpers)
        _lead(stage, body, params, Setup(device, ALONE, interruption, trains, helpers))
        return
    with here.silent() if here.rank > 0 else nullcontext():
        device = devices.start(settings, here.local_rank, here.local_size)
        with here.joined(device, settings.strategy) as processes:
            if processes.leads:
                _lead(stage, body, params, Setup(device, processes, interruption, trains))
            else:
                _take_part(stage, body, params, device, processes)


@dataclass(frozen=True)
class Setup:
    """What a stage begins with, whoever runs it; helpers: processes that make its shards."""

    device: torch.device
    processes: Processes
    interruption: Interruption
    trains: bool
    helpers: int = 1


def _lead(stage: str, body: Body, params: parameters.Params, setup: Setup) -> None:
    """All that a stage does; of several processes, one does it."""
    if timed := os.environ.get(VARIABLE):
        _time(stage, body, params, setup, Path(timed))
    else:
        _run(stage, body, params, setup)


def _take_part(stage: str, body: Body, params: parameters.Params, device: torch.device, processes: Processes) -> None:
    """The body as far as its training, beside the process that leads; nothing is written before that."""
    training = processes.from_leader("")
    profile = devices.execution_profile(device, processes.size)
    checkpoints = Checkpoints(Path(training) if training else None, profile, 0, 0, Interruption())
    with explain_shortages(stage, params, device, checkpoints):
        body(params, Work(device, _untracked(stage), checkpoints, processes))


def _time(stage: str, body: Body, params: parameters.Params, setup: Setup, folder: Path) -> None:
    """The body as far as some steps of its training, aside: nothing of it is kept but how long they took."""
    setup.processes.from_leader("")
    aside = folder / "project"
    link(Path.cwd(), aside, stage_spec(stage).outputs)
    os.chdir(aside)
    work = Work(setup.device, _untracked(stage), processes=setup.processes, ending=Stopwatch)
    try:
        with explain_shortages(stage, params, setup.device, work.checkpoints):
            body(params, work)
    except MeasuredError as measured:
        keep(measured.timing, folder)


def _untracked(stage: str) -> Run:
    return Run(Account(stage, {}, {}, {}, {}, "", False), tracked=False)


def _run(stage: str, body: Body, params: parameters.Params, setup: Setup) -> None:
    began = time.monotonic()
    settings, device, processes = devices.runtime(), setup.device, setup.processes
    here = stage_spec(stage)
    check_not_linked(here.outputs)
    executed = ExecutedCode(here)
    with exclusive(stage, FOLDER / f"{stage}.lock"):
        again = reproduction()
        root = again or project_root()
        clear_recorded(root)
        profile = devices.execution_profile(device, max(processes.size, setup.helpers))
        if again is not None:
            write_json(again / PROFILE, profile)
        chosen = chosen_params(here, params)
        inputs, code = here.input_hashes(), here.code_hashes()
        section = dict(chosen.get(stage, {}))
        finish = Finish(stage, section) if setup.trains and again is None else None
        training = root / FOLDER / stage / training_fingerprint(stage, here, chosen, inputs, code)
        checkpoints = Checkpoints(
            training, profile, settings.checkpoint_minutes, settings.checkpoint_steps, setup.interruption
        )
        outlook = start_outlook(stage, params, here, profile) if again is None else None
        with stage_run(stage, without_end(chosen, stage), inputs, code, here.outputs, profile) as run:
            run.text(parameters.PARAMS_FILE.read_text(encoding="utf-8"), parameters.PARAMS_FILE.name)
            if (manifest := _manifest(here, params)) is not None:
                run.file(manifest, f"{MANIFESTS.as_posix()}/{manifest.name}")
            remarks = demands.met_at_start(params, stage, here.inputs)
            processes.from_leader(str(training))
            if training.parent.is_dir() and not setup.trains:
                keep_latest(training)
            try:
                shards = Shards(training, settings)
                work = Work(device, run, checkpoints, processes, partial(Ending, request=finish), shards)
                with shards, explain_shortages(stage, params, device, checkpoints):
                    figures = {**body(params, work), **remarks}
            except BaseException as error:
                _report(run, device, began, error)
                raise
            finally:  # a run's parameter has one value for ever, and this one may have changed on the way
                if finish is not None:
                    chosen[stage] = section = finish.section
                if STOP_AT in section:
                    run.parameters({f"{stage}.{STOP_AT}": section[STOP_AT]})
            for path in here.outputs:
                if not path.exists():
                    raise DarkroomError(f"{path} was not written")
            _check_unchanged(stage, chosen)
            resumed = {} if checkpoints.resumed is None else {"resumed.from_step": str(checkpoints.resumed)}
            made_by = {"shards.made_by": shards.made_by} if shards.made_by else {}
            for name, value in {**resumed, **made_by, **executed.tags()}.items():
                run.tag(name, value)
            run.summary(figures)
            run.wrote(here.outputs)
            _report(run, device, began)
        mark_done(training, here.outputs)
        forget(stage)
        if outlook is not None:
            outlook.record(time.monotonic() - began)
    print(_summary(stage, time.monotonic() - began, here.outputs, figures, run.address), flush=True)


def _manifest(here: StageSpec, params: parameters.Params) -> Path | None:
    """The manifest of the files that the stage reads its pictures from, to be kept with its run; None where there is
    none, or it is too large to be looked at."""
    manifest = getattr(params.prepare_data.source, "manifest_file", None) if MANIFESTS in here.inputs else None
    return manifest if manifest is not None and manifest.is_file() and is_kept(manifest) else None


def _report(run: Run, device: torch.device, began: float, error: BaseException | None = None) -> None:
    """Write the report of the run, which ends here, by an error or without; no fault in that stops a stage.

    Imported here, after the run has said what it ran: what is written afterwards changes no output.
    """
    if reproduction() is not None:
        return
    try:
        from darkroom.reporting.facts import Execution
        from darkroom.reporting.write import report_stage

        seconds = time.monotonic() - began
        execution = Execution(
            began=round((time.time() - seconds) * 1000),
            seconds=seconds,
            memory_mib=peak(torch.device("cpu"))[0] / MIB,
            device_memory_mib=None if device.type == "cpu" else peak(device)[0] / MIB,
            profile=run.account.profile,
            commit=run.account.commit,
            dirty=bool(run.account.dirty),
        )
        if error is None:
            report_stage(run, execution, "FINISHED")
        elif isinstance(error, KeyboardInterrupt):
            saved = error.saved if isinstance(error, Interrupted) else ""
            report_stage(run, execution, "KILLED", f"Interrupted; {saved}." if saved else "Interrupted.")
        else:
            report_stage(run, execution, "FAILED", first_line(error))
    except Exception as failure:
        report(
            f"darkroom: {run.account.stage}: no report was written ({first_line(failure)}); darkroom report does that"
        )


def _check_unchanged(stage: str, chosen: Mapping[str, Any]) -> None:
    """Refuse to end where params.yaml says something else by now: DVC would record that as what made the outputs."""
    now = parameters.load().model_dump()
    changed = [line for key, value in chosen.items() for line in differences(value, lookup(now, key), key)]
    if changed:
        raise DarkroomError(
            f"{parameters.PARAMS_FILE}: changed while {stage} ran, and dvc would record what did not make this: "
            f"{'; '.join(changed)}; change it back for dvc repro to end this one, or dvc repro for the new values"
        )


def _how_to_resume(saved: str) -> str:
    if reproduction() is not None:
        return "darkroom reproduce starts it again, from its beginning"
    if saved:
        return f"{saved}; dvc repro resumes there"
    return "dvc repro starts it again, at its last checkpoint if it has one"


def _summary(stage: str, seconds: float, outputs: list[Path], figures: Figures, address: str | None) -> str:
    lines = [f"{stage}: done in {seconds:.0f} s"]
    for path in outputs:
        size = sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size
        lines.append(f"  wrote {path} ({readable_size(size)})")
    lines += [f"  {name}: {figure(value)}" for name, value in figures.items()]
    if address:
        lines.append(f"  run: {address}{link_hint()}")
    return "\n".join(map(printable_text, lines))
