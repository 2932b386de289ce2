"""The audit: gathers what DVC, the disk and MLflow say of a stage and all it builds on, and mends the store."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from darkroom.audit import picture as pictures
from darkroom.audit.checks import Checks
from darkroom.audit.definition import check_code, compare_definition
from darkroom.audit.disk import Cache, Disk
from darkroom.audit.findings import Finding, merged, short
from darkroom.audit.held import Held
from darkroom.audit.kinds import foreign
from darkroom.audit.lineage import Lineage, Step, ordered, read_lineage
from darkroom.audit.oddities import check_kinds
from darkroom.audit.raw_data import check_raw_data
from darkroom.audit.testimony import (
    RECORDED,
    REPAIR,
    RESTORED,
    MatchedRuns,
    ask,
    compare,
    explain,
    rival,
    stale_runs,
)
from darkroom.config.paths import ARTIFACTS
from darkroom.config.stage_spec import LOCK, StageSpec, stage_specs
from darkroom.core.artifact import file_hash
from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import is_on, location, shown
from darkroom.tracking.outbox.journal import pending
from darkroom.tracking.query import RunQuery, store_exists, stray_artifacts
from darkroom.tracking.records import hashes, own_artifacts
from darkroom.tracking.store import Store

PICTURES = ".png"


@dataclass
class Audit:
    """What was looked at, and what was found. versions: of registered models, in words, by the content they hold.

    unvouched: what MLflow holds of which nobody can tell whether it is true.
    """

    target: str
    lineage: Lineage
    findings: list[Finding]
    told: Mapping[str, MatchedRuns]
    versions: Mapping[str, list[str]]
    picture: pictures.Traced | None = None
    repaired: list[str] = field(default_factory=list)
    unvouched: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether the chain holds."""
        return not any(finding.breaks for finding in self.findings)


class Auditor:
    """Looks at one target: a stage, a file that a stage writes, a picture with a record, or (None) everything.

    Raises:
        DarkroomError: no project here, or no such stage or file.
    """

    def __init__(self, target: str | None, all_runs: bool = False) -> None:
        self.places, self.all_runs = stage_specs(), all_runs
        self.target = target
        self.picture: pictures.Recorded | None = None
        self._opening: Future[RunQuery] | None = None
        self._pool = ThreadPoolExecutor(1)
        self._copies: dict[str, Path] = {}
        stage = self._resolve()
        lock = LOCK.read_bytes() if LOCK.is_file() else None
        if is_on() and store_exists():
            self._opening = self._pool.submit(RunQuery)  # takes seconds, in which files are hashed
        self.current = read_lineage(lock, self.places)
        self.disk = Disk(path for place in self.places.values() for path in place.outputs)
        self.cache = Cache(self.disk)
        if self.picture is not None:
            stage = next((s.stage for s in self.current.steps.values() if self.picture.model in s.outputs.values()), "")
        self.stages = self._behind(stage) if stage is not None else list(self.places)
        self.lineage = Lineage({name: step for name, step in self.current.steps.items() if name in self.stages})
        self.checks = Checks(self.lineage, self.places, self.disk, self.cache)
        self.checks.expect()

    def audit(self) -> Audit:
        """Look at everything."""
        traced = None
        witness, findings = self._witness()
        lineage, checks, past = self.lineage, self.checks, False
        if self.picture is not None:
            traced = pictures.trace(self.picture, lineage, self.places, self.disk, witness)
            findings += traced.findings
            if traced.lineage is not None:
                lineage, past = traced.lineage, True
                checks = Checks(lineage, self.places, self.disk, self.cache)
        told = {name: ask(witness, step) for name, step in lineage.steps.items()} if witness else {}
        for name, step in lineage.steps.items():
            findings += self._past(step, lineage) if past else self._present(step, told.get(name))
            if name in told:
                findings += compare(step, told[name], checks)
            if name in told and not past:
                findings += compare_definition(step, told[name].maker, checks)
        if not past:
            findings += [*check_kinds(checks), *check_code(self.places), *self._never_ran()]
        if witness:
            findings += self._store_faults(witness)
        versions, unvouched = {}, list[str]()
        if witness and not past:
            held = self._held(witness, told)
            findings += held.findings()
            unvouched = held.unvouched
        if witness:
            models = [step.outputs[path] for step in lineage.steps.values() for path in step.outputs if _is_model(path)]
            versions = {digest: found for digest in models if (found := witness.versions(digest))}
        return Audit(
            self.target or "all stages", lineage, merged(findings), told, versions, traced, unvouched=unvouched
        )

    def repair(self) -> list[str]:
        """Mend what the store should say, and tell what was done."""
        if not is_on():
            raise DarkroomError("DARKROOM_TRACKING=off: nothing can be recorded; set it to on")
        if self._opening is None:
            self._opening = self._pool.submit(_make_store)
        witness, done = self._opening.result(), list[str]()
        witness.follow()
        told = {name: ask(witness, step) for name, step in self.lineage.steps.items()}
        done += self._held(witness, told).repair()
        witness.refresh()
        if pending():
            sent = witness.replay()
            if sent.sent:
                done.append(f"sent from the journal: what {len(sent.sent)} of the runs had to tell")
            if sent.waiting:
                done.append(f"still in the journal: what {sent.waiting} of the runs have to tell ({sent.reason})")
        for seen, why in stale_runs(witness, self.stages):
            witness.kill(seen, why)
            done.append(f"run {seen.id} of {seen.stage} is now KILLED: {why}")
        if n := stray_artifacts(mend=True):
            done.append(f"{n} places of artifacts now lie in this project")
        for step in self.lineage.steps.values():
            done += self._record(witness, step)
        witness.refresh()
        return done

    def _record(self, witness: RunQuery, step: Step) -> Iterator[str]:
        told = ask(witness, step)
        kinds = {finding.kind for finding in compare(step, told, self.checks)}
        if any(self.disk.digest(Path(path), digest) != digest for path, digest in step.outputs.items()):
            return  # nothing is attested that is not here
        if "missing run" in kinds:
            if told.deleted:
                witness.restore(told.deleted, self._find)
                yield f"{step.stage}: its deleted run {told.deleted.id} is back"
                return
            if rival(step, told, self.checks):
                return  # it may be dvc.lock that was changed
            witness.record(step.stage, step.flat_params, step.inputs, step.outputs, RECORDED)
            yield f"{step.stage}: a run is recorded afterwards"
        elif "restored" in kinds:
            witness.record(step.stage, step.flat_params, step.inputs, step.outputs, RESTORED)
            yield f"{step.stage}: a run says that its outputs were restored"

    def _held(self, witness: RunQuery, told: Mapping[str, MatchedRuns]) -> Held:
        contents = {digest for step in self.current.steps.values() for digest in step.outputs.values()}
        return Held(witness, self.all_runs, contents, told, self._find)

    def _find(self, md5: str) -> Path | None:
        """A file with this content: in DVC's cache, among the outputs, or among the files that MLflow keeps."""
        if (place := self.cache.place(md5)).is_file() and file_hash(place) == md5:
            return place
        if md5 not in self._copies:
            outputs = (Path(path) for step in self.current.steps.values() for path in step.outputs)
            for folder in (*filter(Path.is_dir, outputs), *filter(Path.is_dir, [own_artifacts()])):
                self._copies |= {found: folder / name for name, found in hashes(folder).items()}
            self._copies.setdefault("", Path())
        found = self._copies.get(md5)
        return found if found is not None and found.is_file() and file_hash(found) == md5 else None

    def _witness(self) -> tuple[RunQuery | None, list[Finding]]:
        if not is_on():
            what = "DARKROOM_TRACKING=off: no run was asked"
            return None, [Finding("not asked", "MLflow", what, "set DARKROOM_TRACKING=on")]
        if self._opening is None:
            what = "there is no such store: the runs are gone, or were never recorded here"
            remedy = f"put it back, or {REPAIR} notes them anew"
            return None, [Finding("missing run", shown(location()), what, remedy, tuple(self.lineage.steps))]
        try:
            return self._opening.result(), []
        except DarkroomError as error:
            what, _, remedy = str(error).rpartition("; ")
            return None, [Finding("store", shown(location()), what, remedy, tuple(self.lineage.steps))]

    def _present(self, step: Step, told: MatchedRuns | None) -> Iterator[Finding]:
        """How the disk differs from dvc.lock."""
        checks = self.checks
        for path, digest in checks.differs(step).items():
            yield explain(step, path, digest, told, checks) if told else checks.tampered(step, path)
        yield from checks.outputs(step)
        yield from checks.chain(step)
        yield from checks.code(step, told.maker.commit if told and told.maker else "")
        yield from checks.definition(step)
        yield from check_raw_data(step, self.disk)

    def _past(self, step: Step, lineage: Lineage) -> Iterator[Finding]:
        """What is wrong with a step of an earlier pipeline, of which nothing need lie on the disk."""
        here = (step.stage,)
        for path, digest in step.outputs.items():
            if path not in step.uncached and self.cache.lacks(digest):
                what = f"{short(digest)} is not in DVC's cache any more"
                yield Finding("not in cache", path, what, "dvc pull at its commit, or dvc repro there", here)
        for path, digest in step.inputs.items():
            maker = lineage.maker(path)
            if maker and maker.outputs.get(path) != digest:
                what = f"{step.stage} read {short(digest)}, but the {maker.stage} behind it wrote another"
                yield Finding("stale chain", path, what, "dvc repro at its commit", here)
            elif not maker and _declared(self.places).maker(path):
                what = f"no run made the {short(digest)} that {step.stage} read"
                yield Finding("missing run", path, what, "audit with the store that has it: MLFLOW_TRACKING_URI", here)

    def _never_ran(self) -> Iterator[Finding]:
        for name in self.stages:
            if name not in self.current.steps and not foreign(LOCK):
                yield Finding("out of date", name, f"never ran, says {LOCK}", "dvc repro", (name,))

    def _store_faults(self, witness: RunQuery) -> Iterator[Finding]:
        for run in pending():
            what = f"a run that began at {datetime.fromtimestamp(run.began / 1000):%F %T} waits to be sent"
            yield Finding("not yet sent", run.stage, what, REPAIR, (run.stage,))
        for seen, why in stale_runs(witness, self.stages):
            what = f"run {seen.id} counts as running, but {why}"
            yield Finding("stale run", seen.stage, what, REPAIR, (seen.stage,))
        if n := stray_artifacts(mend=False):
            yield Finding(
                "lost copies", shown(location()), f"{n} places of artifacts name a folder that was moved", REPAIR
            )

    def _resolve(self) -> str | None:
        """The stage that is meant; None for all, and for a picture, which is then read."""
        target = self.target
        if target is None or target in self.places:
            return target
        path = Path(target)
        if path.is_absolute() and path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        if maker := _declared(self.places).maker(path.as_posix()):
            return maker.stage
        if path.suffix.lower() == PICTURES and path.exists():
            self.picture = pictures.read(path)
            return None
        raise DarkroomError(
            f"{target}: neither a stage, nor a file that one writes, nor a picture; stages: {', '.join(self.places)}"
        )

    def _behind(self, stage: str) -> list[str]:
        return list(_declared(self.places).behind(stage).steps) if stage else []


def _make_store() -> RunQuery:
    """A store where there was none."""
    Store()
    return RunQuery()


def _is_model(path: str) -> bool:
    return Path(path).parent == ARTIFACTS


def _declared(stages: Mapping[str, StageSpec]) -> Lineage:
    """The stages as dvc.yaml declares them, without contents."""
    return ordered(
        Step(
            name,
            place.cmd,
            inputs=dict.fromkeys((path.as_posix() for path in place.inputs), ""),
            code={},
            outputs=dict.fromkeys((path.as_posix() for path in place.outputs), ""),
        )
        for name, place in stages.items()
    )
