"""What was made from what: the last execution of each stage, as dvc.lock or a run has it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.audit.findings import Finding
from darkroom.config.lock_file import LockedStage, parse_lock
from darkroom.config.stage_spec import StageSpec
from darkroom.tracking.run import flat


@dataclass(frozen=True)
class Step:
    """One execution of a stage. Contents are DVC's hashes, by path relative to the project; sizes in bytes.

    params: {file: {section: values}} as dvc.lock keeps them. uncached: outputs that git keeps, not DVC's cache.
    """

    stage: str
    cmd: str
    inputs: Mapping[str, str]
    code: Mapping[str, str]
    outputs: Mapping[str, str]
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    uncached: frozenset[str] = frozenset()

    @property
    def flat_params(self) -> dict[str, Any]:
        """{"train_unet.steps": 1350}"""
        return {key: value for values in self.params.values() for key, value in flat(values).items()}

    def finding(self, kind: str, what: str, remedy: str, where: str = "") -> Finding:
        """A finding that concerns this stage; `where`: the stage itself unless a path is given."""
        return Finding(kind, where or self.stage, what, remedy, (self.stage,))


@dataclass(frozen=True)
class Lineage:
    """Steps by stage, each after those it builds on."""

    steps: Mapping[str, Step]

    def maker(self, path: str) -> Step | None:
        """The step that writes `path`, or the folder that holds it."""
        holds = (path, *map(str, Path(path).parents))
        return next((step for step in self.steps.values() for out in step.outputs if out in holds), None)

    def behind(self, stage: str) -> "Lineage":
        """A stage and all it builds on."""
        wanted, waiting = set(), [stage]
        while waiting:
            here = waiting.pop()
            if here not in wanted:
                wanted.add(here)
                waiting += [maker.stage for path in self.steps[here].inputs if (maker := self.maker(path))]
        return Lineage({name: step for name, step in self.steps.items() if name in wanted})

    def makers(self, step: Step) -> list[Step]:
        """The steps a step builds on directly, each once."""
        found = {maker.stage: maker for path in step.inputs if (maker := self.maker(path))}
        return list(found.values())

    def roots(self) -> list[Step]:
        """The steps nothing else here builds on."""
        used = {maker.stage for step in self.steps.values() for maker in self.makers(step)}
        return [step for name, step in self.steps.items() if name not in used]


def read_lineage(lock: str | bytes | None, specs: Mapping[str, StageSpec]) -> Lineage:
    """The steps in the text of a dvc.lock, of the stages that dvc.yaml still names; None: no such file."""
    entries = {} if lock is None else parse_lock(lock)
    return ordered(_step(name, entries[name], spec) for name, spec in specs.items() if name in entries)


def ordered(steps: Iterable[Step]) -> Lineage:
    waiting = {step.stage: step for step in steps}
    everything, done = Lineage(dict(waiting)), dict[str, Step]()
    while waiting:
        ready = [s for s in waiting.values() if not any(m.stage in waiting for m in everything.makers(s))]
        for step in ready or list(waiting.values()):  # DVC refuses circles
            done[step.stage] = waiting.pop(step.stage)
    return Lineage(done)


def _step(name: str, entry: LockedStage, spec: StageSpec) -> Step:
    return Step(
        stage=name,
        cmd=entry.cmd,
        inputs=entry.inputs,
        code=entry.code,
        outputs=entry.outputs,
        params=entry.params,
        sizes=entry.sizes,
        uncached=frozenset(path.as_posix() for path in spec.uncached),
    )
