"""What an audit may find, and which of it breaks the chain."""

from collections.abc import Iterable
from dataclasses import dataclass

BREAKS = {  # kind: what it means
    "foreign kind": "a link, pipe, socket or device, or a folder for a file, stands where a file or folder belongs",
    "hidden": "in an output lies what .dvcignore keeps from DVC",
    "tampered": "an output is not as its stage wrote it, and no run wrote it so",
    "tampered report": "likewise a report that git keeps",
    "another profile": "an output is what a run with another execution profile made of the same inputs",
    "not in dvc.lock": "an output is what some run wrote, but not the execution that dvc.lock has",
    "missing": "an output is gone from the disk",
    "corrupt cache": "an object in DVC's cache does not hold what its name says",
    "stale chain": "something was made from another version of its input than the one that is here",
    "contradicted": "a run has other outputs or parameters than dvc.lock",
    "missing run": "no finished run wrote what dvc.lock has, from the inputs it has",
    "changed in MLflow": "MLflow's entry for a run or a model is not what was recorded when it was made",
    "lost record": "a record in .darkroom is gone, is not what its name says, or another speaks against it",
    "not recorded": "MLflow has a run or a model that left no record, though others of its time did",
    "changed report": "a report in .darkroom/reports is not what its run, parameters and outputs give",
    "store": "the runs cannot be asked",
    "raw data": "files from outside the project are not those of their manifest",
    "foreign code": "Python could import, or a run did, code that no stage names among its dependencies",
    "out of date": "code, parameters or dvc.yaml changed after the stage ran, or it never ran",
    "no record": "a picture does not say how it was made",
    "unknown model": "neither dvc.lock, git nor a run knows the pipeline that drew a picture",
}
WARNINGS = {
    "dirty commit": "a run began with uncommitted changes",
    "unknown commit": "a run names no commit, or one this repository lacks",
    "restored": "the outputs are of an earlier run: DVC's run cache or git brought them back",
    "recorded afterwards": "an audit, not the stage, recorded the run",
    "other code": "the run that wrote this ran other code than dvc.lock has, as after dvc commit",
    "not rerun": "darkroom keep took the outputs over when code of the stage had changed",
    "other frame": "what starts and tracks stages has changed since, which is not a dependency",
    "older report": "a report is of another run than dvc.lock has, or was written by other code",
    "no definition": "the run is older than the record of how a stage was started",
    "system files": "a file manager, disk or drive left its own files in what DVC hashes; they were not counted",
    "unknown adapter": "neither dvc.lock, git nor a run knows what an adapter of a picture was trained from",
    "not in cache": "DVC's cache could not give an output back",
    "lost copies": "the pictures and files that a run kept are gone or lie where it does not look",
    "recorded before digests": "a run or a model is older than records, so that nothing shows whether it was changed",
    "half registered": "darkroom register was killed at work, and left a model that nothing names",
    "not yet sent": "the tracking server was away: a run waits in the outbox on this disk",
    "stale run": "a run counts as running, but its process is gone",
    "no raw data": "the files from outside are not on this machine, so they were not compared",
    "not asked": "tracking is off: no run was asked",
}
SHOWN = 3  # names in a finding, before "and N more"


@dataclass(frozen=True)
class Finding:
    """kind: a key of BREAKS or WARNINGS. stages: whom it concerns. remedy: a command, or what to do."""

    kind: str
    where: str
    what: str
    remedy: str
    stages: tuple[str, ...] = ()

    @property
    def breaks(self) -> bool:
        """Whether the chain from the source to here does not hold."""
        return self.kind in BREAKS


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """One finding where several stages share it, with one command for all; those that break the chain come first."""
    found: dict[tuple[str, str, str, str], Finding] = {}
    for finding in findings:
        per_stage = finding.stages == (finding.where,)
        remedy = finding.remedy.replace(f" {finding.where}", " STAGE") if per_stage else finding.remedy
        key = (finding.kind, "" if per_stage else finding.where, finding.what, remedy)
        if key in found:
            stages = tuple(dict.fromkeys((*found[key].stages, *finding.stages)))
            where = ", ".join(stages) if per_stage else finding.where
            finding = Finding(finding.kind, where, finding.what, remedy.replace("STAGE", " ".join(stages)), stages)
        found[key] = finding
    kinds = [*BREAKS, *WARNINGS]
    return sorted(found.values(), key=lambda finding: kinds.index(finding.kind))


def short(digest: str | None) -> str:
    """The first digits of a hash."""
    return digest[:8] if digest else "nothing"


def some(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
