"""`darkroom status`: what `dvc repro` would run, and why, before it does."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from darkroom.config.lock_file import LockedStage, read_lock
from darkroom.config.stage_spec import PIPELINE, is_made, makers, stage_specs
from darkroom.core.errors import DarkroomError
from darkroom.project.code_files import file_of, outdated, recorded_stages, some
from darkroom.project.kept import Kept
from darkroom.runner.differences import Comparison, Differences, changed_code


@dataclass
class StageStatus:
    """A stage. reasons: why it is out of date; code_alone: all of them are of its code. after: stages out of date that
    it builds on. kept: the note of its outputs, where they were taken over."""

    stage: str
    reasons: list[str] = field(default_factory=list)
    code_alone: bool = False
    after: list[str] = field(default_factory=list)
    kept: Kept | None = None


def status() -> list[StageStatus]:
    """Every stage of dvc.yaml, in its order.

    Raises:
        DarkroomError: no project here, dvc.lock cannot be read, or stages build on each other in a circle.
    """
    specs, locked, comparison = stage_specs(), read_lock(), Comparison()
    behind = {stage: makers(spec, specs) for stage, spec in specs.items()}
    installed = {change.stage: change.why for change in outdated(recorded_stages(specs))}
    found: dict[str, StageStatus] = {}
    for stage in _in_order(behind):
        spec = specs[stage]
        here = StageStatus(stage, after=[name for name in behind[stage] if _runs(found[name])])
        found[stage] = here
        if stage not in locked:
            here.reasons.append("never ran")
            continue
        differences = comparison.differences(spec, locked[stage])
        made = {
            path.as_posix() for path in spec.inputs if any(is_made(path, specs[name].outputs) for name in here.after)
        }
        if stage in installed:
            here.reasons.append(installed[stage])
        here.reasons += _reasons(stage, differences, locked[stage], made, installed)
        here.code_alone = differences.of_code_alone and (stage in installed or bool(differences.code))
        here.kept = Kept.of(stage, locked[stage].code)
    return [found[stage] for stage in specs]


def _runs(stage: StageStatus) -> bool:
    return bool(stage.reasons or stage.after)


def _in_order(behind: Mapping[str, list[str]]) -> list[str]:
    """The stages, each after those it builds on."""
    try:
        return list(TopologicalSorter(behind).static_order())
    except CycleError as error:
        raise DarkroomError(f"{PIPELINE}: stages wait for each other: {' -> '.join(error.args[1])}; fix it") from None


def _reasons(
    stage: str, found: Differences, locked: LockedStage, made: set[str], installed: Mapping[str, str]
) -> Iterator[str]:
    """made: inputs that are made anew anyway."""
    code = [path for path in found.code if not (stage in installed and Path(path) == file_of(stage))]
    kinds = {
        "its code changed": changed_code(stage, locked, code),
        "its data changed": [path for path in found.inputs if path not in made],
        "its parameters changed": found.params,
        "its outputs are not there as it wrote them": found.outputs,
        "dvc.yaml changed": found.definition,
    }
    for what, names in kinds.items():
        if names:
            yield f"{what}: {some(names)}"
