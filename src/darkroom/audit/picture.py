"""A generated picture: which pipeline drew it, by the hash in its record, and who made that pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

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


@dataclass(frozen=True)
class Recorded:
    """What a picture says of itself. model: hash of its pipeline; empty where it says nothing, and `why` why."""

    path: Path
    model: str
    values: Mapping[str, Any]
    why: str = ""


@dataclass(frozen=True)
class Traced:
    """A picture and where its pipeline was found. lineage: of an earlier pipeline; None for dvc.lock's, or for none."""

    picture: Recorded
    found: str
    lineage: Lineage | None = None
    findings: list[Finding] = field(default_factory=list)


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
    picture: Recorded, current: Lineage, specs: Mapping[str, StageSpec], disk: Disk, query: RunQuery | None
) -> Traced:
    """Find the pipeline that drew a picture: in dvc.lock, in an earlier dvc.lock that git has, among the runs."""
    if not picture.model:
        remedy = "give a PNG as darkroom generate wrote it"
        return Traced(picture, "", Lineage({}), [Finding("no record", str(picture.path), picture.why, remedy)])
    if _maker(current, picture.model):
        return Traced(picture, f"as in {LOCK}")
    if (earlier := lineage_in_git(picture.model)) is not None:
        commit, lineage = earlier
        found = f"an earlier one, {LOCK} of commit {short(commit)}: git checkout {short(commit)} && dvc checkout"
        return Traced(picture, found, lineage)
    if query and (run := query.wrote(MADE_AT, picture.model)):
        return Traced(picture, f"an earlier one, that run {short(run.id)} made", lineage_of_run(run, query, specs))
    return Traced(picture, "", Lineage({}), [_unknown(picture, disk, query)])


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


def lineage_in_git(model: str) -> tuple[str, Lineage] | None:
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


def lineage_of_run(last: RecordedRun, query: RunQuery, specs: Mapping[str, StageSpec]) -> Lineage:
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
