"""What a stage runs, as dvc.yaml has it and as the disk holds it, against what its run tells that it ran."""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from darkroom.audit.checks import Checks
from darkroom.audit.findings import Finding, short, some
from darkroom.audit.kept_code import kept
from darkroom.audit.lineage import Step, read_lineage
from darkroom.config.stage_spec import LOCK, PIPELINE, StageSpec, is_code, read_stage_specs
from darkroom.core.artifact import file_hash
from darkroom.core.errors import DarkroomError
from darkroom.tracking.executed_code import DEFINITION, FRAME, OUTSIDE, changed_since, read_tags, stray_code
from darkroom.tracking.repository import git_text_or_none, md5_at_head
from darkroom.tracking.sources import RecordedRun

AS_TOLD = f"as {PIPELINE} and {LOCK} have it"


def check_code(specs: Mapping[str, StageSpec]) -> Iterator[Finding]:
    """Code in the folders of code that is in no stage's dependencies, so that nobody would see it run."""
    for path in stray_code(specs.values()):
        instead = path.name.partition(".")[0] in sys.stdlib_module_names
        what = "no stage names it among its dependencies"
        what += ", and Python may import it in place of its own" if instead else ""
        away = f"rm -r {shlex.quote(str(path))}"
        if git_text_or_none("ls-tree", "HEAD", "--", str(path)):
            changed = md5_at_head(str(PIPELINE)) not in (None, file_hash(PIPELINE))
            away = f"git checkout HEAD -- {PIPELINE}" if changed else f"git {away}"
        yield Finding("foreign code", str(path), what, f"{away}, or name it among the deps of its stage in {PIPELINE}")


def compare_definition(step: Step, maker: RecordedRun | None, checks: Checks) -> Iterator[Finding]:
    """What the run that made a step ran otherwise than the project's files have it."""
    if maker is None or maker.afterwards:
        return
    again, run = f"dvc repro -f -s {step.stage}", f"run {short(maker.id)}"
    recorded, frame, outside = (read_tags(maker.tags, tag) for tag in (DEFINITION, FRAME, OUTSIDE))
    if not (isinstance(recorded, dict) and isinstance(frame, dict) and isinstance(outside, list)):
        what = "its run does not say how the stage was started, so that was not compared"
        yield step.finding("no definition", what, f"none needed; {again} makes it anew")
        return
    if outside:
        what = f"{run} imported what is neither a dependency nor an installed package: {some(list(map(str, outside)))}"
        yield step.finding("foreign code", what, f"{again}, once that is out of Python's way")
    spec = checks.specs[step.stage]
    if not any(finding.where == str(PIPELINE) for finding in checks.definition(step)):  # else that has been said
        yield from _definition(step, spec, recorded, run)
    for name in changed_since(frame):
        if md5_at_head(name) not in (None, file_hash(Path(name)) if Path(name).is_file() else ""):
            what = "changed since its stages ran, and not committed; it starts stages, and is not a dependency"
            yield step.finding("out of date", what, f"git checkout HEAD -- {name}", name)
        else:
            what = "has changed since its stages ran; it starts them, and should change no byte of what they write"
            yield step.finding("other frame", what, f"none needed; {again} makes its outputs anew", name)


def _definition(step: Step, spec: StageSpec, recorded: Mapping[str, Any], run: str) -> Iterator[Finding]:
    now: dict[str, Any] = json.loads(spec.definition)
    if now == recorded:
        return
    deps, before = list(map(str, now.get("deps", []))), list(map(str, recorded.get("deps", [])))
    lost = [dep for dep in before if not any(dep == path or Path(path) in Path(dep).parents for path in deps)]
    if kept(step) is not None:
        lost = [dep for dep in lost if not is_code(Path(dep))]
    new = [dep for dep in deps if dep not in before and not is_code(Path(dep))]
    said = []
    if now.get("cmd") != recorded.get("cmd"):
        said.append(f"ran {recorded.get('cmd')!r}, not {now.get('cmd')!r} {AS_TOLD}")
    if lost or new:
        said.append(f"had other dependencies than {AS_TOLD}: {some([*lost, *new])}")
    others = (now.keys() | recorded.keys()) - {"cmd", "deps"}
    if differing := sorted(key for key in others if now.get(key) != recorded.get(key)):
        said.append(f"had other {', '.join(differing)} than {AS_TOLD}")
    remedy = f"dvc repro -f -s {step.stage}"
    if _at_head(step, recorded):
        remedy = f"git checkout HEAD -- {PIPELINE} {LOCK}, or {remedy}"
    for what in said:
        yield step.finding("contradicted", f"{run} {what}", remedy)


def _at_head(step: Step, recorded: Mapping[str, Any]) -> bool:
    """Whether the last commit has the definition that a run tells of, and a dvc.lock with what it wrote."""
    try:
        specs = read_stage_specs(git_text_or_none("show", f"HEAD:./{PIPELINE}") or "")
        there = read_lineage(git_text_or_none("show", f"HEAD:./{LOCK}") or "", specs).steps[step.stage]
    except (DarkroomError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return False
    same = json.loads(specs[step.stage].definition) == recorded and there.cmd == recorded.get("cmd")
    return same and there.outputs == step.outputs
