"""What MLflow holds, against the records that were kept of it: runs, registered models, their versions and files."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from darkroom.audit.evidence import REPAIR, REPAIR_ALL, MatchedRuns
from darkroom.audit.findings import Finding, short, some
from darkroom.audit.logged_models import READY, content_of, is_checkpoint, is_open, wrong_copy
from darkroom.serving.registry import MODEL
from darkroom.tracking import database, record_sync
from darkroom.tracking.address import artifacts_address, tracking_uri
from darkroom.tracking.database import EXPERIMENT, Tables
from darkroom.tracking.differences import additions, differences, is_deleted
from darkroom.tracking.process import is_running
from darkroom.tracking.query import RunQuery
from darkroom.tracking.records import (
    FOLDER,
    SUBFOLDERS,
    Record,
    creation_time,
    current_record,
    own_artifacts,
    tagged_digest,
)
from darkroom.tracking.repository import git_text_or_none
from darkroom.tracking.sources import CONTENT
from darkroom.tracking.ui_columns import experiment_tags

Thing = tuple[str, str]  # kind and key, see database.BELONGS


@dataclass
class StoreAudit:
    """query: the open store. everything: whether runs and copies that dvc.lock does not name are looked at, too.

    contents: the hashes of what dvc.lock's stages wrote. evidence: the runs that made it, by stage. find: a file with
    an md5. unvouched: what was seen and nobody vouches for; filled while findings are asked for.
    """

    query: RunQuery
    everything: bool
    contents: Collection[str]
    evidence: Mapping[str, MatchedRuns]
    find: record_sync.Find
    unvouched: list[str] = field(default_factory=list)
    _reported: set[Path] = field(default_factory=set)
    _before: list[str] = field(default_factory=list)  # what is older than records

    def findings(self) -> Iterator[Finding]:
        """What is otherwise than recorded, what has no record, and which records are not as they were."""
        if (tables := self.query.tables) is None:
            self.unvouched.append("runs, models and files on a server, but for what dvc.lock asks of a run")
            return
        yield from self._experiment(tables)
        for kind, key in self._scope(tables):
            yield from self._thing(tables, kind, key)
        if self._before:
            what = f"made before records were kept: {some(self._before)}"
            remedy = "none needed; darkroom register makes a version that has a record"
            yield Finding("recorded before digests", "MLflow", what, remedy)
        yield from self._files_of_records(tables)
        if not self.everything and (rest := len(self._runs(tables)) - len(self._makers)):
            self.unvouched.append(f"runs that dvc.lock does not name ({rest}): darkroom audit --all-runs compares them")

    def repair(self) -> Iterator[str]:
        """Have MLflow hold what the records say, and take away what is in none; each thing done, in words."""
        if self.query.tables is None:
            return
        yield from self._repair_experiment(self.query.tables)
        tables = self.query.tables
        yield from self._repair_records(tables)
        records = self.query.records
        for kind, key in self._scope(tables):
            record, now = records.latest.get((kind, key)), current_record(tables, kind, key)
            called = self._called(kind, key, record or now)
            if record is None:
                dangling = (
                    key not in self._makers and tagged_digest(tables.rows(kind, key), kind) and not is_deleted(now)
                )
                if dangling or self._is_made_up(kind, key, now, tables):
                    record_sync.delete(tables, kind, key)
                    yield f"{called} has no record, and is deleted in MLflow"
            elif (kind == "copy" or not is_deleted(now)) and (
                differences(record, now) or self._wrong_tag(tables, record)
            ):
                lost = record_sync.restore(tables, record, self.find)
                yield f"{called} is as recorded again" + (
                    f", but for files that nobody has: {some([*lost])}" if lost else ""
                )

    @cached_property
    def _makers(self) -> dict[str, str]:
        """The runs that made what dvc.lock has: {id: stage}."""
        return {evidence.maker.id: stage for stage, evidence in self.evidence.items() if evidence.maker}

    def _runs(self, tables: Tables) -> list[str]:
        recorded = (key for kind, key in self.query.records.latest if kind == "run")
        return list(dict.fromkeys((*tables.keys("run"), *recorded)))

    def _scope(self, tables: Tables) -> list[Thing]:
        """What is looked at: the rows of all models and versions, and of runs and copies those that matter or all."""
        records = self.query.records
        models, versions, copies = (
            list(dict.fromkeys((*tables.keys(kind), *(key for one, key in records.latest if one == kind))))
            for kind in ("model", "version", "copy")
        )
        runs = self._runs(tables) if self.everything else [*self._makers]
        if not self.everything:
            unnamed = [key for key in copies if ("copy", key) not in records.latest]
            matter = [self._copy_of(tables, key) for key in versions if self._matters(tables, key)]
            made = [key for key in copies if self._content_of(tables, key) in self.contents]
            copies = [key for key in copies if key in unnamed or key in matter or key in made]
        kinds = {"run": runs, "model": models, "version": versions, "copy": copies}
        return [(kind, key) for kind, keys in kinds.items() for key in keys]

    def _matters(self, tables: Tables, version: str) -> bool:
        """Whether a version is of dvc.lock's contents, or an alias names it."""
        record = self.query.records.latest.get(("version", version))
        rows = record.rows if record else tables.rows("version", version)
        content = [row["value"] for row in rows.get("model_version_tags", []) if row["key"] == CONTENT]
        aliases = [
            f"{row['name']}/{row['version']}"
            for record in self.query.records.latest.values()
            for row in record.rows.get("registered_model_aliases", [])
        ]
        return version in aliases or version in tables.aliased() or any(one in self.contents for one in content)

    def _content_of(self, tables: Tables, copy: str) -> str:
        record = self.query.records.latest.get(("copy", copy))
        return content_of(record.rows if record else tables.rows("copy", copy))

    def _copy_of(self, tables: Tables, version: str) -> str:
        record = self.query.records.latest.get(("version", version))
        rows = (record.rows if record else tables.rows("version", version)).get("model_versions", [])
        return str(rows[0]["source"]).removeprefix("models:/") if rows else ""

    def _thing(self, tables: Tables, kind: str, key: str) -> Iterator[Finding]:
        record, now = self.query.records.latest.get((kind, key)), current_record(tables, kind, key)
        called, here = self._called(kind, key, record or now), self._stages(kind, key)
        tag = tagged_digest(tables.rows(kind, key), kind)
        if tag and tag not in self.query.records.digests:
            yield self._lost(tables, kind, key, tag, called)
            return
        if record is None:
            yield from self._unrecorded(tables, kind, key, now, called)
            return
        if is_deleted(now) and kind != "copy":
            if kind == "version":
                self.unvouched.append(f"{called}, which was deleted in MLflow")
            return
        found = differences(record, now)
        if not found and self._wrong_tag(tables, record):
            found = ["tag record does not name its record"]
        if found and not (found == ["gone"] and kind == "run" and key not in self._makers and not self.everything):
            yield Finding("changed in MLflow", called, some(found), self._command(kind, key), here)
        if more := additions(record, now):
            self.unvouched.append(f"{called}: {some(more)}")
        if record.lost:
            what = f"files that it kept are lost: {some([*record.lost])}"
            remedy = f"none needed; dvc repro -f -s {here[0]} keeps new ones" if here else "none needed"
            yield Finding("lost copies", called, what, remedy, here)

    def _unrecorded(self, tables: Tables, kind: str, key: str, now: Record, called: str) -> Iterator[Finding]:
        here = self._stages(kind, key)
        if not now.rows or is_deleted(now):
            return
        if is_open(now):
            if kind == "copy":
                self.unvouched.append(f"{called}, which is not complete")
            return
        if kind == "copy" and self._is_half_made(tables, now):
            tags = {row["tag_key"]: row["tag_value"] for row in now.rows.get("logged_model_tags", [])}
            if is_running(tags, shared=False) is not True:
                what = "was not registered to its end, and no version names it"
                yield Finding("half registered", called, what, "darkroom register", here)
            return
        if kind == "copy" and (wrong := wrong_copy(now)):
            yield Finding("changed in MLflow", called, wrong, "darkroom register", here)
        elif self._is_made_up(kind, key, now, tables):
            what = "left no record, though others of its time did: it may be made up"
            yield Finding("not recorded", called, what, self._command(kind, key), here)
        elif here and self._should_have_record(now):
            what = "left no record, though others of its time did"
            yield Finding("not recorded", called, what, f"dvc repro -f -s {here[0]}", here)
        elif here:
            remedy = f"none needed; dvc repro -f -s {here[0]} makes one that has a record"
            yield Finding("recorded before digests", here[0], "its run was made before records were kept", remedy, here)
        else:
            self._before.append(called)

    def _is_made_up(self, kind: str, key: str, now: Record, tables: Tables) -> bool:
        """Whether a thing without a record should have one, and nothing here builds on it."""
        if not now.rows or is_deleted(now) or is_open(now) or key in self._makers:
            return False
        return not (kind == "copy" and self._is_half_made(tables, now)) and self._should_have_record(now)

    def _should_have_record(self, now: Record) -> bool:
        return creation_time(now.rows) >= self.query.records.began(now.kind)

    def _is_half_made(self, tables: Tables, now: Record) -> bool:
        row = now.rows["logged_models"][0]
        if is_checkpoint(now):
            return False
        named_by = [self._copy_of(tables, version) for version in tables.keys("version")]
        return row["status"] != READY or row["model_id"] not in named_by

    def _wrong_tag(self, tables: Tables, record: Record) -> bool:
        return tagged_digest(tables.rows(record.kind, record.key), record.kind) != record.digest

    def _lost(self, tables: Tables, kind: str, key: str, digest: str, called: str) -> Finding:
        """That the record of a thing is gone or damaged, and how it comes back."""
        file, here = FOLDER / SUBFOLDERS[kind] / f"{digest}.json", self._stages(kind, key)
        self._reported.add(file)
        what = f"the record of {called} is {'damaged' if file.exists() else 'gone'}"
        if record_sync.rebuild_record(tables, kind, key, digest, self.query.records) is not None:
            return Finding("lost record", str(file), what, _from_git(file) or self._command(kind, key), here)
        what += ", and MLflow does not say any more what stood in it"
        remedy = f"rm -f {file} && dvc repro -f -s {here[0]}" if here else f"rm -f {file} && {self._command(kind, key)}"
        return Finding("lost record", str(file), what, _from_git(file) or remedy, here)

    def _files_of_records(self, tables: Tables) -> Iterator[Finding]:
        """Records that are damaged, that git has and the disk has not, or of which two tell of the same thing."""
        records = self.query.records
        folders = {str(FOLDER / folder) for folder in SUBFOLDERS.values()}
        gone = (git_text_or_none("ls-files", "--deleted", "--", *sorted(folders)) or "").splitlines()
        for file in dict.fromkeys(file for file in (*records.damaged, *map(Path, gone)) if file not in self._reported):
            what = "is not what its name says" if file in records.damaged else "is gone, and git has it"
            yield Finding("lost record", str(file), what, _from_git(file) or REPAIR)
        for record in records.conflicting:
            both = records.latest[record.kind, record.key], record
            kept = [one for one in both if _from_git(one.file)]
            forged = [one.file for one in both if one not in kept]
            called, here = self._called(record.kind, record.key, record), self._stages(record.kind, record.key)
            remedy = f"rm -f {' '.join(map(str, forged))}"
            if not kept:
                remedy += f" && dvc repro -f -s {here[0]}" if here else f" && {REPAIR}"
            what = f"two records describe {called}, and neither follows the other"
            yield Finding("lost record", str(record.file), what, remedy, here)

    def _repair_records(self, tables: Tables) -> Iterator[str]:
        """Write damaged and lost records again, as far as MLflow says what stood in them; take damaged ones away."""
        changed = False
        for kind, key in self._scope(tables):
            digest = tagged_digest(tables.rows(kind, key), kind)
            if digest and digest not in self.query.records.digests:
                file = FOLDER / SUBFOLDERS[kind] / f"{digest}.json"
                if record := record_sync.rebuild_record(tables, kind, key, digest, self.query.records):
                    file.unlink(missing_ok=True)
                    record.save()
                    changed = True
                    yield f"the record {file} is there again"
        for file in self.query.records.damaged:
            if not _from_git(file) and record_sync.is_damaged(file):
                file.unlink(missing_ok=True)
                changed = True
                yield f"{file} was not what its name says, and is gone"
        if changed:
            self.query.refresh()

    def _experiment(self, tables: Tables) -> Iterator[Finding]:
        """The experiment that all runs are in, whose rows follow from the code and from where the project lies."""
        if found := list(self._wrong_experiment(tables)):
            yield Finding("changed in MLflow", f"experiment {EXPERIMENT}", some(found), REPAIR)

    def _wrong_experiment(self, tables: Tables) -> Iterator[str]:
        if tables.experiment is None:
            if self._experiment_of_records() is not None:
                yield "is gone, or has another name"
            return
        rows = tables.rows("experiment", str(tables.experiment))
        if (state := rows["experiments"][0]["lifecycle_stage"]) != "active":
            yield f"is {state}"
        tags = {row["key"]: row["value"] for row in rows.get("experiment_tags", [])}
        yield from (
            f"tag {key} is not what it should be" for key, value in experiment_tags().items() if tags.get(key) != value
        )
        here = artifacts_address(own_artifacts())
        if not tracking_uri() and tables.location != here and tables.keeps_runs_below(here):
            yield f"artifact_location is {tables.location}, but its runs keep theirs here"

    def _repair_experiment(self, tables: Tables) -> Iterator[str]:
        if not list(self._wrong_experiment(tables)):
            return
        known_as = tables.experiment if tables.experiment is not None else self._experiment_of_records()
        assert known_as is not None
        database.name_experiment(tables.file, known_as)
        self.query.follow()
        assert self.query.tables is not None
        rows = self.query.tables.rows("experiment", str(known_as))
        kept = [row for row in rows.get("experiment_tags", []) if row["key"] not in experiment_tags()]
        tags = [{"key": key, "value": value, "experiment_id": known_as} for key, value in experiment_tags().items()]
        database.put_back(tables.file, "experiment", str(known_as), {**rows, "experiment_tags": kept + tags})
        yield f"the experiment {EXPERIMENT} is as it should be"

    def _experiment_of_records(self) -> int | None:
        runs = (record.rows["runs"][0] for record in self.query.records.latest.values() if record.kind == "run")
        ids = (
            run["experiment_id"] for run in runs if self.query.tables and self.query.tables.lifecycle(run["run_uuid"])
        )
        return next(iter(ids), None)

    def _stages(self, kind: str, key: str) -> tuple[str, ...]:
        return (self._makers[key],) if kind == "run" and key in self._makers else ()

    def _command(self, kind: str, key: str) -> str:
        return REPAIR if kind != "run" or key in self._makers else REPAIR_ALL

    def _called(self, kind: str, key: str, record: Record) -> str:
        if kind == "run":
            tags = {row["key"]: row["value"] for row in record.rows.get("tags", [])}
            return f"run {short(key)}" + (f" of {tags['stage']}" if "stage" in tags else "")
        if kind == "copy" and is_checkpoint(record):
            return f"checkpoint {key[: len('m-') + 8]} of the model {record.rows['logged_models'][0]['name']}"
        if kind == "copy":
            return f"copy {key[: len('m-') + 8]} of the model {MODEL}"
        return f"model {key}" if kind == "model" else "version {1} of model {0}".format(*key.rpartition("/")[::2])


def _from_git(file: Path) -> str:
    """The command that brings a file back from git; empty where git has no such file."""
    return (
        f"git checkout HEAD -- {file}"
        if git_text_or_none("cat-file", "-e", f"HEAD:./{file.as_posix()}") is not None
        else ""
    )
