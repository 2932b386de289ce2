"""What every script in stages/ shares: its place in dvc.yaml, parameters, device, tracking, errors, summary."""

import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml

from darkroom import params as parameters
from darkroom.copies import link_what_is_outside, run_own_code
from darkroom.core import device as devices
from darkroom.core.errors import DarkroomError
from darkroom.tracking import Run, stage_run
from darkroom.tracking.note import figure, readable_size
from darkroom.tracking.store import is_server, location

PIPELINE = Path("dvc.yaml")
CODE = ("src", "stages")
KILLED_BY = 128  # a process ended by signal n exits with 128 + n

Figures = Mapping[str, float | str]
Body = Callable[[parameters.Params, torch.device, Run], Figures]


@dataclass(frozen=True)
class Place:
    """What dvc.yaml says of a stage, so that it is said once."""

    inputs: list[Path]
    code: list[Path]
    outputs: list[Path]
    params: list[str]


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the work stands so that everything is left in order."""


def place(stage: str, pipeline: Path = PIPELINE) -> Place:
    """The stage's entry in dvc.yaml.

    Raises:
        DarkroomError: no such file here, or no such stage in it.
    """
    try:
        stages = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"]
    except FileNotFoundError:
        raise DarkroomError(f"{pipeline}: no such file here; run stages from the project's folder") from None
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise DarkroomError(f"{pipeline}: not a pipeline of DVC ({' '.join(str(error).split())}); mend it") from None
    if stage not in stages:
        raise DarkroomError(f"{pipeline}: has no stage {stage!r}; it has {', '.join(stages)}")
    entry = stages[stage]
    deps = _paths(entry.get("deps", []))
    return Place(
        inputs=[path for path in deps if path.parts[0] not in CODE],
        code=[path for path in deps if path.parts[0] in CODE],
        outputs=[path for kind in ("outs", "metrics", "plots") for path in _paths(entry.get(kind, []))],
        params=list(entry.get("params", [])),
    )


def _paths(entries: list[Any]) -> list[Path]:
    """Paths from dvc.yaml, where an entry is a path or {path: options}."""
    return [Path(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]


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
    run_own_code()
    params = parameters.load()
    link_what_is_outside(params)
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
