"""Compares dvc.lock with what MLflow's runs tell: who made this, from what, at which commit, on which machine."""

import json
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.audit.checks import Checks
from darkroom.audit.findings import Finding, short, some
from darkroom.audit.kept_code import kept
from darkroom.audit.lineage import Step
from darkroom.tracking.address import artifacts_folder
from darkroom.tracking.query import RunQuery
from darkroom.tracking.repository import NO_COMMIT, NO_REPOSITORY, git_text_or_none, why_git_fails
from darkroom.tracking.run import code_hash
from darkroom.tracking.sources import RecordedRun
from darkroom.tracking.store import VALUE_LENGTH

REPAIR, REPAIR_ALL = "darkroom audit --repair", "darkroom audit --all-runs --repair"
RESTORED, RECORDED = "restored", "recorded afterwards"


@dataclass
class MatchedRuns:
    """What the runs say of one step.

    maker: the run that made it, or None. others: further runs of the stage, newest first.
    """

    maker: RecordedRun | None = None
    others: list[RecordedRun] = field(default_factory=list)
    deleted: RecordedRun | None = None  # where there is no maker: the finished run that was deleted


def match_runs(query: RunQuery, step: Step) -> MatchedRuns:
    """Find the run that made what a step wrote, from what it read: the latest one that is finished and not deleted."""
    runs = query.runs(step.stage, step.outputs)
    agreeing = [run for run in runs if run.good and _agrees(run, step)]
    agreeing.sort(key=lambda run: not run.recorded)  # of what left a record, others vouch for what it says
    maker = next(iter([run for run in agreeing if not run.afterwards] or agreeing), None)
    lost = next((s for s in runs if s.deleted and s.status == "FINISHED" and _agrees(s, step)), None)
    return MatchedRuns(maker, [run for run in runs if run is not maker], None if maker else lost)


def compare(step: Step, evidence: MatchedRuns, checks: Checks) -> Iterator[Finding]:
    """What the runs say otherwise than dvc.lock, and what speaks against the run that made it."""
    if evidence.maker is None:
        yield _nobody(step, evidence, checks)
        return
    maker, again = evidence.maker, f"dvc repro -f -s {step.stage}"
    if wrong := [key for key, value in step.flat_params.items() if not _same(maker.params.get(key), value)]:
        what = f"run {short(maker.id)} had other parameters than dvc.lock: {some(wrong)}"
        yield step.finding("contradicted", what, f"git checkout dvc.lock, or {again}")
    later = (run for run in evidence.others if run.good and run.began > maker.began and not run.in_copy)
    newest = next(later, None)
    if newest and any(newest.outputs.get(path) != digest for path, digest in step.outputs.items()):
        what = f"of run {short(maker.id)}, {day(maker.began)}; a newer run {short(newest.id)} wrote others"
        yield step.finding("restored", what, f"none needed; {REPAIR} notes it in MLflow")
    if maker.afterwards:
        what = "its run was recorded by an audit, which did not see it made"
        yield step.finding("recorded afterwards", what, f"none needed; {again} makes it anew")
        return
    if maker.dirty:
        what = f"made at {short(maker.commit)} with uncommitted changes"
        yield step.finding("dirty commit", what, f"commit them, then {again}")
    if maker.why_unknown:
        first = "git init and commit" if maker.why_unknown in (NO_REPOSITORY, NO_COMMIT) else "see to git"
        yield step.finding("unknown commit", maker.why_unknown, f"{first}, then {again}")
    elif git_text_or_none("cat-file", "-e", f"{maker.commit}^{{commit}}") is None:
        lacks = "which this repository lacks; git fetch --all, or push it from where it was made"
        why, _, remedy = (f"but {silent}" if (silent := why_git_fails()) else lacks).rpartition("; ")
        yield step.finding("unknown commit", f"made at commit {short(maker.commit)}, {why}", remedy)
    if _same_code(step, maker, checks) is False and kept(step) is None:  # else that is said
        yield step.finding("other code", f"run {short(maker.id)} ran other code than dvc.lock has", again)
    folder = artifacts_folder(maker.artifacts)
    if folder is not None and not folder.is_dir():
        what = f"the pictures and files that run {short(maker.id)} kept are not in {folder}"
        yield step.finding("lost copies", what, f"put them back there, or {again}")


def contradicting_run(step: Step, evidence: MatchedRuns, checks: Checks) -> RecordedRun | None:
    """A run that made something else of a step's inputs and parameters, unless its code is known to be another."""
    for run in evidence.others:
        same = run.good and not _other_inputs(run, step) and _same_params(run, step)
        if same and not run.afterwards and _same_code(step, run, checks) is not False:
            return run
    return None


def explain(step: Step, path: str, digest: str, evidence: MatchedRuns, checks: Checks) -> Finding:
    """Why an output on the disk has another content than dvc.lock has: a run wrote it, or it was tampered with."""
    wrote = next((run for run in evidence.others if run.good and run.outputs.get(path) == digest), None)
    if wrote is None:
        return checks.tampered(step, path)
    back = f"{checks.restore(step, path)} brings dvc.lock's back, dvc commit -f {step.stage} keeps this"
    if _other_inputs(wrote, step) or not _same_params(wrote, step):
        what = f"holds what run {short(wrote.id)} wrote, from other inputs or parameters"
        return step.finding("not in dvc.lock", what, back, path)
    if evidence.maker and (differing := _differing(evidence.maker.profile, wrote.profile)):
        what = f"run {short(wrote.id)} made it on another execution profile than dvc.lock's: {some(differing)}"
        return step.finding("another profile", what, back, path)
    what = f"holds what run {short(wrote.id)} wrote from the same inputs, and dvc.lock has another"
    return step.finding("not in dvc.lock", what, back, path)


def stale_runs(query: RunQuery, stages: Collection[str]) -> list[tuple[RecordedRun, str]]:
    """The runs of these stages that count as running and never will end, with the reason."""
    open_runs = [run for run in query.running() if run.stage in stages]
    return [(run, why) for run in open_runs if (why := query.why_stale(run))]


def day(milliseconds: int) -> str:
    """A time as people read it, on this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(milliseconds / 1000))


def _nobody(step: Step, evidence: MatchedRuns, checks: Checks) -> Finding:
    if evidence.deleted:
        state = "is gone from MLflow, and its record is here" if evidence.deleted.gone else "was deleted in MLflow"
        return step.finding("missing run", f"its run {short(evidence.deleted.id)} {state}", REPAIR)
    what = "no finished run made what dvc.lock has, from the inputs it has"
    if run := contradicting_run(step, evidence, checks):
        other = some([path for path, digest in step.outputs.items() if run.outputs.get(path) != digest])
        remedy = f"git checkout dvc.lock, or dvc repro -f -s {step.stage}"
        if _same_code(step, run, checks):
            what = f"run {short(run.id)} made other contents than dvc.lock has of the same inputs: {other}"
            return step.finding("contradicted", what, remedy)
        what += f"; run {short(run.id)} made others of them, maybe by the same code, which has changed since: {other}"
        return step.finding("missing run", what, remedy)
    return step.finding("missing run", what, f"{REPAIR} notes it, dvc repro -f -s {step.stage} makes it anew")


def _agrees(run: RecordedRun, step: Step) -> bool:
    wrote = all(run.outputs.get(path) == digest for path, digest in step.outputs.items())
    return wrote and not _other_inputs(run, step)


def _other_inputs(run: RecordedRun, step: Step) -> bool:
    return any(run.inputs.get(path) != digest for path, digest in step.inputs.items())


def _same_params(run: RecordedRun, step: Step) -> bool:
    return all(_same(run.params.get(key), value) for key, value in step.flat_params.items())


def _same(evidence: str | None, value: Any) -> bool:
    """Whether a run's parameter, a text that may have been cut, is this value."""
    text = value if isinstance(value, str) else json.dumps(value)
    if evidence is None:
        return False
    if evidence == text[:VALUE_LENGTH]:
        return True
    try:
        return bool(json.loads(evidence) == value)
    except ValueError:
        return False


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    keys = sorted(before.keys() | now.keys())
    pairs = [(key, before.get(key, "unknown"), now.get(key, "unknown")) for key in keys]
    return [f"{key.replace('_', ' ')} {now}, not {before}" for key, before, now in pairs if before != now]


def _same_code(step: Step, run: RecordedRun, checks: Checks) -> bool | None:
    """Whether a run's code is dvc.lock's; None where that is not known, or no longer on the disk."""
    if not step.code or any(checks.disk.digest(Path(path), digest) != digest for path, digest in step.code.items()):
        return None
    files: dict[str, str] = {}
    for path in step.code:
        for name, digest in (checks.disk.listing(Path(path)) or {}).items():
            files[f"{path}/{name}" if name else path] = digest
    return run.tags.get("code") == code_hash(files)
