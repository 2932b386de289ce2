"""A generated picture: which pipeline drew it, by the hash in its record, and who made that pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from darkroom.audit.adapters import TracedAdapter, trace_adapters
from darkroom.audit.disk import Disk
from darkroom.audit.findings import Finding, short
from darkroom.audit.lineage import Lineage, Step, ordered, read_lineage
from darkroom.config.stage_spec import LOCK, PIPELINE, StageSpec, read_stage_specs
from darkroom.core.errors import DarkroomError
from darkroom.inference.record_text import read_values
from darkroom.serving.registry import MADE_AT
from darkroom.tracking.query import RunQuery
from darkroom.tracking.repository import git_text_or_none, why_git_fails
from darkroom.tracking.sources import RecordedRun

UNKNOWN = "neither dvc.lock, git nor a run knows anything"
AUDIT_THERE = "audit it in the project, or with the MLFLOW_TRACKING_URI, where the adapter was trained"


@dataclass(frozen=True)
class Recorded:
    """What a picture says of itself. model: hash of its pipeline; empty where it says nothing, and `why` why."""

    path: Path
    model: str
    values: Mapping[str, Any]
    why: str = ""


@dataclass(frozen=True)
class Traced:
    """A picture and where its pipeline was found. lineage: of an earlier pipeline; None for dvc.lock's, or for none.

    adapters: that it was drawn with.
    """

    picture: Recorded
    found: str
    lineage: Lineage | None = None
    findings: list[Finding] = field(default_factory=list)
    adapters: list[TracedAdapter] = field(default_factory=list)


def read(path: Path) -> Recorded:
    try:
        values, _ = read_values(path)
        for listed in ("prompts", "seeds"):
            values[listed][values["index"] or 0]
        return Recorded(path, str(values["model"]), values)
    except (KeyError, IndexError, TypeError) as error:
        return Recorded(path, "", {}, f"its record is damaged ({type(error).__name__}: {error})")
    except DarkroomError as error:
        return Recorded(path, "", {}, str(error).removeprefix(f"{path}: ").partition("; ")[0])


def trace(
    picture: Recorded,
    current: Lineage,
    lock: Lineage,
    specs: Mapping[str, StageSpec],
    disk: Disk,
    query: RunQuery | None,
) -> Traced:
    """Find the pipeline that drew a picture: in dvc.lock, in an earlier dvc.lock that git has, among the runs.

    Args:
        current: what is behind the pipeline, of dvc.lock; lock: all of it, in which the data of adapters are sought.
    """
    if not picture.model:
        remedy = "give a PNG as darkroom generate wrote it"
        return Traced(picture, "", Lineage({}), [Finding("no record", str(picture.path), picture.why, remedy)])
    adapters = trace_adapters(picture.values, lambda path, digest: locate(path, digest, lock, specs, query))
    findings = [
        Finding(
            "unknown adapter", str(picture.path), f"was drawn with {one.name}, of whose data {UNKNOWN}", AUDIT_THERE
        )
        for one in adapters
        if not one.known
    ]
    if _maker(current, picture.model):
        return Traced(picture, f"as in {LOCK}", None, findings, adapters)
    if (earlier := _in_git(picture.model)) is not None:
        commit, lineage = earlier
        found = f"an earlier one, {LOCK} of commit {short(commit)}: git checkout {short(commit)} && dvc checkout"
        return Traced(picture, found, lineage, findings, adapters)
    if query and (run := query.wrote(MADE_AT, picture.model)):
        found = f"an earlier one, that run {short(run.id)} made"
        return Traced(picture, found, _from_runs(run, query, specs), findings, adapters)
    return Traced(picture, "", Lineage({}), [_unknown(picture, disk, query), *findings], adapters)


def locate(
    path: str, digest: str, lock: Lineage, specs: Mapping[str, StageSpec], query: RunQuery | None
) -> tuple[str, Lineage] | None:
    """Where an output of this content is known from, in words, and all that it was made from; None: nowhere."""
    if maker := _maker(lock, digest):
        return f"as in {LOCK}", lock.behind(maker.stage)
    if (earlier := _in_git(digest)) is not None:
        return f"{LOCK} of commit {short(earlier[0])}", earlier[1]
    if query and (run := query.wrote(path, digest)):
        return f"run {short(run.id)}", _from_runs(run, query, specs)
    return None


def _unknown(picture: Recorded, disk: Disk, query: RunQuery | None) -> Finding:
    what = f"was drawn by a pipeline {short(picture.model)} that neither {LOCK}, git"
    what += " nor a run knows" if query else " knows; no run could be asked"
    if silent := why_git_fails():
        what += f"; but {silent.rpartition('; ')[0]}"
    if disk.digest(Path(MADE_AT)) == picture.model:
        what = f"was drawn by {MADE_AT} as it lies here, which no stage wrote so"
    elif query and (versions := query.versions(picture.model)):
        what = f"was drawn by {', '.join(versions)}, registered from elsewhere: no run here made it"
    remedy = "audit it in the project, or with the MLFLOW_TRACKING_URI, where its pipeline was made"
    return Finding("unknown model", str(picture.path), what, remedy)


def _maker(lineage: Lineage, model: str) -> Step | None:
    return next((step for step in lineage.steps.values() if model in step.outputs.values()), None)


def _in_git(model: str) -> tuple[str, Lineage] | None:
    """The commit that brought a dvc.lock with this content, and what that says of its making."""
    commits = git_text_or_none("log", "-m", "--format=%H", f"-S{model}", "--", str(LOCK))  # -m: merges too
    if not commits:
        return None
    commit = commits.splitlines()[-1]
    lock, stages = git_text_or_none("show", f"{commit}:./{LOCK}"), git_text_or_none("show", f"{commit}:./{PIPELINE}")
    try:
        lineage = read_lineage(lock or "", read_stage_specs(stages or ""))
    except (DarkroomError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return None
    maker = _maker(lineage, model)
    return (commit, lineage.behind(maker.stage)) if maker else None


def _from_runs(last: RecordedRun, query: RunQuery, specs: Mapping[str, StageSpec]) -> Lineage:
    """The run that made a pipeline, and those that made what it read, each found by its content."""
    uncached = frozenset(path.as_posix() for spec in specs.values() for path in spec.uncached)
    steps: dict[str, Step] = {}
    waiting = [last]
    while waiting:
        run = waiting.pop()
        if run.stage in steps:
            continue
        steps[run.stage] = Step(
            run.stage,
            "",
            run.inputs,
            code={},
            outputs=run.outputs,
            params={"": dict(run.params)},
            uncached=uncached & run.outputs.keys(),
        )
        waiting += [maker for path, digest in run.inputs.items() if (maker := query.wrote(path, digest))]
    return ordered(steps.values())
