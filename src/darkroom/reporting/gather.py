"""The facts of a run: from the stage itself at its end, or from what a store has of a past one."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from darkroom.config import recipes
from darkroom.config.lock_file import LockedStage, read_lock
from darkroom.config.params import PARAMS_FILE
from darkroom.config.stage_spec import LOCK, PIPELINE
from darkroom.config.yaml_file import Loader, parse
from darkroom.core.errors import DarkroomError
from darkroom.reporting.facts import (
    FACTS,
    FINISHED,
    FOLDER,
    Execution,
    Facts,
    Files,
    Series,
    code_digest,
    finite,
    parse_facts,
    read_facts,
)
from darkroom.tracking.note import Account, Observed
from darkroom.tracking.query import RunQuery
from darkroom.tracking.run import flat
from darkroom.tracking.sources import RecordedRun

CLOCKED = "throughput/"  # how curves begin that depend on the clock
RESUMED = "resumed.from_step"  # tag of a run

Steps = dict[str, dict[str, dict[str, str]]]


def of_stage(account: Account, observed: Observed, execution: Execution, status: str, reason: str) -> Facts:
    """The facts of the stage that is at work here, at its end."""
    steps = {**kept_steps(Path.cwd()), **locked_steps()}
    steps[account.stage] = {"inputs": dict(account.inputs), "outputs": dict(account.outputs)}
    recipe, changed = nearest_recipe((observed.files.get(PARAMS_FILE.name) or b"").decode(), account.params)
    clocked, others = _divided(observed.metrics)
    return Facts(
        stage=account.stage,
        status=status,
        reason=reason,
        about=_about(account.stage),
        params=dict(account.params),
        inputs=dict(account.inputs),
        outputs=dict(account.outputs),
        lineage=behind(account.stage, steps),
        recipe=recipe,
        changed=changed,
        curves={} if status == FINISHED else others,
        code=code_digest(),
        execution=Execution(**{**vars(execution), "series": clocked}),
    )


def of_recorded(run: RecordedRun, query: RunQuery) -> tuple[Facts, Files]:
    """The facts of a past run, and its files: those that the run itself kept for a report, if it did.

    Raises:
        DarkroomError: the store does not say.
    """
    folder = query.folder(run)
    files = Files((folder,) if folder and folder.is_dir() else ())
    if kept := files.read(FACTS):
        with suppress(DarkroomError):
            return parse_facts(kept, run.id), files
    clocked, others = _divided(query.series(run))
    params = {key: _value(text) for key, text in run.params.items()}
    recipe, changed = nearest_recipe((files.read(PARAMS_FILE.name) or b"").decode(errors="replace"), params)
    steps = _steps_behind(run, query)
    note = run.tags.get("mlflow.note.content", "")
    facts = Facts(
        stage=run.stage,
        status=run.status,
        reason="" if run.status == FINISHED else note.removeprefix("### Broken off").strip(),
        about=_about(run.stage),
        params=params,
        inputs=run.inputs,
        outputs=run.outputs,
        lineage=behind(run.stage, steps),
        recipe=recipe,
        changed=changed,
        curves={} if run.status == FINISHED else others,
        code=code_digest(),
        execution=Execution(
            began=run.began,
            seconds=(run.ended - run.began) / 1000 if run.ended and not run.afterwards else None,
            series=clocked,
            profile=run.profile,
            commit=run.commit,
            dirty=run.dirty,
            resumed=run.tags.get(RESUMED, ""),
        ),
    )
    return facts, files


def as_locked(facts: Facts, params: Mapping[str, Any], steps: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Facts:
    """The same, with all that dvc.lock says of it in place of what was kept.

    Args:
        params: of the stage, flat. steps: see `locked_steps`.
    """
    here = steps[facts.stage]
    inputs, outputs = dict(here["inputs"]), dict(here["outputs"])
    return replace(facts, params=params, inputs=inputs, outputs=outputs, lineage=behind(facts.stage, steps))


def locked_params(stage: str, lock: Path = LOCK) -> dict[str, Any]:
    """The parameters of a stage in dvc.lock, flat."""
    files = _locked(lock)[stage].params
    return flat({key: value for values in files.values() for key, value in values.items()})


def of_lock(stage: str) -> Facts:
    """The facts of a stage of which nobody knows more than dvc.lock and the files that are there, as after dvc pull."""
    steps = locked_steps()
    params = locked_params(stage)
    try:
        text = PARAMS_FILE.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    recipe, changed = nearest_recipe(text, params)
    return Facts(
        stage=stage,
        status=FINISHED,
        reason="",
        about=_about(stage),
        params=params,
        inputs=steps[stage]["inputs"],
        outputs=steps[stage]["outputs"],
        lineage=behind(stage, steps),
        recipe=recipe,
        changed=changed,
        curves={},
        code=code_digest(),
        execution=Execution(),
    )


def locked_steps(lock: Path = LOCK) -> Steps:
    """What each stage of dvc.lock read and wrote, but for code; {} where there is no such file, or it is torn."""
    return {stage: {"inputs": dict(it.inputs), "outputs": dict(it.outputs)} for stage, it in _locked(lock).items()}


def kept_steps(root: Path) -> Steps:
    """What each stage read and wrote whose finished run reports are kept of: dvc.lock lacks those that ran without
    DVC."""
    found: Steps = {}
    for file in sorted((root / FOLDER).glob(f"*/{FACTS}")):
        with suppress(DarkroomError):
            facts = read_facts(file.parents[1].name, root)
            if facts is not None and facts.finished:
                found[facts.stage] = {"inputs": dict(facts.inputs), "outputs": dict(facts.outputs)}
    return found


def _locked(lock: Path) -> Mapping[str, LockedStage]:
    try:
        return read_lock(lock)
    except DarkroomError:
        return {}


def behind(stage: str, steps: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Steps:
    """A stage and all that it builds on, each after those that it builds on."""
    makers = {path: name for name, step in steps.items() for path in step["outputs"]}
    found: Steps = {}

    def visit(name: str, seen: tuple[str, ...]) -> None:
        for path in sorted(steps[name]["inputs"]):
            maker = next((makers[str(p)] for p in (Path(path), *Path(path).parents) if str(p) in makers), None)
            if maker and maker not in (*seen, name):
                visit(maker, (*seen, name))
        found.setdefault(name, {part: dict(sorted(steps[name][part].items())) for part in ("inputs", "outputs")})

    visit(stage, ())
    return found


def nearest_recipe(text: str, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The recipe that a params file is nearest to, and of the keys in `params` those that differ: {key: [ours, its]}.

    "" and nothing where there is no such file, or there are no recipes here.
    """
    try:
        name, changed = recipes.nearest(parse(text, PARAMS_FILE))
    except (DarkroomError, OSError):
        return "", {}
    return name, {key: list(both) for key, both in changed.items() if key in params}


def _steps_behind(run: RecordedRun, query: RunQuery) -> Steps:
    steps: Steps = {}
    waiting = [run]
    while waiting:
        one = waiting.pop()
        if one.stage in steps:
            continue
        steps[one.stage] = {"inputs": one.inputs, "outputs": one.outputs}
        waiting += [maker for path, digest in one.inputs.items() if (maker := query.wrote(path, digest))]
    return steps


def _divided(series: Series) -> tuple[Series, Series]:
    """The curves that depend on the clock, and the others, of more than one point."""
    series = finite(series)
    clocked = {name: points for name, points in series.items() if name.startswith(CLOCKED)}
    others = {name: points for name, points in series.items() if name not in clocked and len(points) > 1}
    return clocked, others


def _about(stage: str) -> str:
    """What dvc.yaml says that a stage does; "" where it says nothing."""
    try:
        return str(yaml.load(PIPELINE.read_text(encoding="utf-8"), Loader)["stages"][stage].get("desc", ""))
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        return ""


def _value(text: str) -> Any:
    """A parameter as a store keeps it, JSON but for texts."""
    try:
        return yaml.load(text, Loader) if text[:1] in "[{" or text in ("null", "true", "false") else _number(text)
    except yaml.YAMLError:
        return text


def _number(text: str) -> Any:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
