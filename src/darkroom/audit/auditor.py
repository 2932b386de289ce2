"""The audit: gathers what DVC, the disk and MLflow say of a stage and all it builds on, and repairs the store."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from darkroom.audit import picture as pictures
from darkroom.audit.checks import Checks
from darkroom.audit.definition import check_code, compare_definition
from darkroom.audit.disk import Cache, Disk
from darkroom.audit.evidence import (
    RECORDED,
    REPAIR,
    RESTORED,
    MatchedRuns,
    compare,
    contradicting_run,
    explain,
    match_runs,
    stale_runs,
)
from darkroom.audit.file_types import foreign
from darkroom.audit.findings import Finding, merged, short
from darkroom.audit.foreign_files import check_kinds
from darkroom.audit.kept_code import check_installed, check_kept
from darkroom.audit.lineage import Lineage, Step, ordered, read_lineage
from darkroom.audit.raw_data import check_raw_data
from darkroom.audit.reports import check_reports
from darkroom.audit.store_audit import StoreAudit
from darkroom.config.paths import ARTIFACTS
from darkroom.config.stage_spec import LOCK, StageSpec, stage_specs
from darkroom.core.artifact import file_hash
from darkroom.core.errors import DarkroomError
from darkroom.tracking.address import is_on, location, without_password
from darkroom.tracking.outbox.pending import pending
from darkroom.tracking.query import RunQuery, moved_artifacts, store_exists
from darkroom.tracking.records import file_hashes, own_artifacts
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
    evidence: Mapping[str, MatchedRuns]
    versions: Mapping[str, list[str]]
    picture: pictures.Traced | None = None
    repaired: list[str] = field(default_factory=list)
    unvouched: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not any(finding.breaks for finding in self.findings)


class Auditor:
    """Looks at one target: a stage, a file that a stage writes, a picture with a record, or (None) everything.

    Raises DarkroomError: no project here, or no such stage or file.
    """

    def __init__(self, target: str | None, all_runs: bool = False) -> None:
        self.specs, self.all_runs = stage_specs(), all_runs
        self.target = target
        self.picture: pictures.Recorded | None = None
        self._opening: Future[RunQuery] | None = None
        self._pool = ThreadPoolExecutor(1)
        self._copies: dict[str, Path] = {}
        stage = self._resolve()
        lock = LOCK.read_bytes() if LOCK.is_file() else None
        if is_on() and store_exists():
            self._opening = self._pool.submit(RunQuery)  # takes seconds, in which files are hashed
        self.current = read_lineage(lock, self.specs)
        self.disk = Disk(path for spec in self.specs.values() for path in spec.outputs)
        self.cache = Cache(self.disk)
        if self.picture is not None:
            stage = next((s.stage for s in self.current.steps.values() if self.picture.model in s.outputs.values()), "")
        self.stages = list(self.specs)
        if stage is not None:
            self.stages = list(_declared(self.specs).behind(stage).steps) if stage else []
        self.lineage = Lineage({name: step for name, step in self.current.steps.items() if name in self.stages})
        self.checks = Checks(self.lineage, self.specs, self.disk, self.cache)
        self.checks.expect()

    def audit(self) -> Audit:
        """Look at everything."""
        traced = None
        query, findings = self._open_query()
        lineage, checks, past = self.lineage, self.checks, False
        if self.picture is not None:
            traced = pictures.trace(self.picture, lineage, self.current, self.specs, self.disk, query)
            findings += traced.findings
            if traced.lineage is not None:
                lineage, past = traced.lineage, True
                checks = Checks(lineage, self.specs, self.disk, self.cache)
        evidence = {name: match_runs(query, step) for name, step in lineage.steps.items()} if query else {}
        for name, step in lineage.steps.items():
            findings += self._past(step, lineage) if past else self._present(step, evidence.get(name))
            if name in evidence:
                findings += compare(step, evidence[name], checks)
            if name in evidence and not past:
                findings += compare_definition(step, evidence[name].maker, checks)
        if not past:
            findings += [*check_kinds(checks), *check_code(self.specs), *self._never_ran()]
            findings += check_reports(checks, evidence, query)
            findings += check_installed(self.specs, self.stages)
        if query:
            findings += self._store_faults(query)
        versions, unvouched = {}, list[str]()
        if query and not past:
            store_audit = self._store_audit(query, evidence)
            findings += store_audit.findings()
            unvouched = store_audit.unvouched
        if query:
            models = [
                step.outputs[path]
                for step in lineage.steps.values()
                for path in step.outputs
                if Path(path).parent == ARTIFACTS
            ]
            versions = {digest: found for digest in models if (found := query.versions(digest))}
        return Audit(
            self.target or "all stages", lineage, merged(findings), evidence, versions, traced, unvouched=unvouched
        )

    def repair(self) -> list[str]:
        """Repair what the store should say; what was done, in words."""
        if not is_on():
            raise DarkroomError("DARKROOM_TRACKING=off: nothing can be recorded; set it to on")
        if self._opening is None:
            self._opening = self._pool.submit(_make_store)
        query, done = self._opening.result(), list[str]()
        query.follow()
        evidence = {name: match_runs(query, step) for name, step in self.lineage.steps.items()}
        done += self._store_audit(query, evidence).repair()
        query.refresh()
        if pending():
            sent = query.replay()
            if sent.sent:
                done.append(f"runs uploaded from the outbox: {len(sent.sent)}")
            if sent.waiting:
                done.append(f"runs still in the outbox: {sent.waiting} ({sent.reason})")
        for run, why in stale_runs(query, self.stages):
            query.kill(run, why)
            done.append(f"run {run.id} of {run.stage} is now KILLED: {why}")
        if n := moved_artifacts(repair=True):
            done.append(f"{n} paths of artifacts now lie in this project")
        for step in self.lineage.steps.values():
            done += self._record(query, step)
        query.refresh()
        return done

    def _record(self, query: RunQuery, step: Step) -> Iterator[str]:
        evidence = match_runs(query, step)
        kinds = {finding.kind for finding in compare(step, evidence, self.checks)}
        if any(self.disk.digest(Path(path), digest) != digest for path, digest in step.outputs.items()):
            return  # nothing is attested that is not here
        if "missing run" in kinds:
            if evidence.deleted:
                query.restore(evidence.deleted, self._find)
                yield f"{step.stage}: its deleted run {evidence.deleted.id} is back"
                return
            if contradicting_run(step, evidence, self.checks):
                return  # it may be dvc.lock that was changed
            query.record(step.stage, step.flat_params, step.inputs, step.outputs, RECORDED)
            yield f"{step.stage}: a run is recorded afterwards"
        elif "restored" in kinds:
            query.record(step.stage, step.flat_params, step.inputs, step.outputs, RESTORED)
            yield f"{step.stage}: a run says that its outputs were restored"

    def _store_audit(self, query: RunQuery, evidence: Mapping[str, MatchedRuns]) -> StoreAudit:
        contents = {digest for step in self.current.steps.values() for digest in step.outputs.values()}
        return StoreAudit(query, self.all_runs, contents, evidence, self._find)

    def _find(self, md5: str) -> Path | None:
        """A file with this content: in DVC's cache, among the outputs, or among the files that MLflow keeps."""
        if (stored := self.cache.object_path(md5)).is_file() and file_hash(stored) == md5:
            return stored
        if md5 not in self._copies:
            outputs = (Path(path) for step in self.current.steps.values() for path in step.outputs)
            for folder in (*filter(Path.is_dir, outputs), *filter(Path.is_dir, [own_artifacts()])):
                self._copies |= {found: folder / name for name, found in file_hashes(folder).items()}
            self._copies.setdefault("", Path())
        found = self._copies.get(md5)
        return found if found is not None and found.is_file() and file_hash(found) == md5 else None

    def _open_query(self) -> tuple[RunQuery | None, list[Finding]]:
        if not is_on():
            what = "DARKROOM_TRACKING=off: no run was asked"
            return None, [Finding("not asked", "MLflow", what, "set DARKROOM_TRACKING=on")]
        if self._opening is None:
            what = "there is no such store: the runs are gone, or were never recorded here"
            remedy = f"put it back, or {REPAIR} notes them anew"
            return None, [Finding("missing run", without_password(location()), what, remedy, tuple(self.lineage.steps))]
        try:
            return self._opening.result(), []
        except DarkroomError as error:
            what, _, remedy = str(error).rpartition("; ")
            return None, [Finding("store", without_password(location()), what, remedy, tuple(self.lineage.steps))]

    def _present(self, step: Step, evidence: MatchedRuns | None) -> Iterator[Finding]:
        checks = self.checks
        for path, digest in checks.differs(step).items():
            yield explain(step, path, digest, evidence, checks) if evidence else checks.tampered(step, path)
        yield from checks.outputs(step)
        yield from checks.chain(step)
        yield from checks.code(step, evidence.maker.commit if evidence and evidence.maker else "")
        yield from checks.definition(step)
        yield from check_kept(step)
        yield from check_raw_data(step, self.disk)

    def _past(self, step: Step, lineage: Lineage) -> Iterator[Finding]:
        """What is wrong with a step of an earlier pipeline, of which nothing need lie on the disk."""
        for path, digest in step.outputs.items():
            if path not in step.uncached and self.cache.lacks(digest):
                what = f"{short(digest)} is not in DVC's cache any more"
                yield step.finding("not in cache", what, "dvc pull at its commit, or dvc repro there", path)
        for path, digest in step.inputs.items():
            maker = lineage.maker(path)
            if maker and maker.outputs.get(path) != digest:
                what = f"{step.stage} read {short(digest)}, but the {maker.stage} behind it wrote another"
                yield step.finding("stale chain", what, "dvc repro at its commit", path)
            elif not maker and _declared(self.specs).maker(path):
                what = f"no run made the {short(digest)} that {step.stage} read"
                yield step.finding("missing run", what, "audit with the store that has it: MLFLOW_TRACKING_URI", path)

    def _never_ran(self) -> Iterator[Finding]:
        for name in self.stages:
            if name not in self.current.steps and not foreign(LOCK):
                yield Finding("out of date", name, f"never ran, says {LOCK}", "dvc repro", (name,))

    def _store_faults(self, query: RunQuery) -> Iterator[Finding]:
        for waiting in pending():
            what = f"a run that began at {datetime.fromtimestamp(waiting.began / 1000):%F %T} waits to be sent"
            yield Finding("not yet sent", waiting.stage, what, REPAIR, (waiting.stage,))
        for run, why in stale_runs(query, self.stages):
            yield Finding("stale run", run.stage, f"run {run.id} counts as running, but {why}", REPAIR, (run.stage,))
        if n := moved_artifacts(repair=False):
            yield Finding(
                "lost copies",
                without_password(location()),
                f"{n} paths of artifacts name a folder that was moved",
                REPAIR,
            )

    def _resolve(self) -> str | None:
        """The stage that is meant; None for all, and for a picture, which is then read."""
        target = self.target
        if target is None or target in self.specs:
            return target
        path = Path(target)
        if path.is_absolute() and path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        if maker := _declared(self.specs).maker(path.as_posix()):
            return maker.stage
        if path.suffix.lower() == PICTURES and path.exists():
            self.picture = pictures.read(path)
            return None
        raise DarkroomError(
            f"{target}: neither a stage, nor a file that one writes, nor a picture; stages: {', '.join(self.specs)}"
        )


def _make_store() -> RunQuery:
    Store()
    return RunQuery()


def _declared(stages: Mapping[str, StageSpec]) -> Lineage:
    """The stages as dvc.yaml declares them, without contents."""
    return ordered(
        Step(
            name,
            spec.cmd,
            inputs=dict.fromkeys((path.as_posix() for path in spec.inputs), ""),
            code={},
            outputs=dict.fromkeys((path.as_posix() for path in spec.outputs), ""),
        )
        for name, spec in stages.items()
    )
