"""Records: all that MLflow holds of a run or a model, written down once beside MLflow, each named by its own hash.

A record is a file `.darkroom/runs/DIGEST.json` or `.darkroom/models/DIGEST.json` and is never changed: what Darkroom
itself changes later, as registering does, follows in a new record that names the one before. The digest is the SHA-256
of the file, and stands in MLflow, too: as the tag `record` of what it is of.
"""

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from darkroom.core.artifact import atomic_path, file_hash
from darkroom.tracking.address import FOLDER as STORE
from darkroom.tracking.address import artifacts_address, artifacts_folder, current_store, project_root, tracking_uri
from darkroom.tracking.database import ARTIFACT_PATHS, Rows, Tables, moved_to

FOLDER = Path(".darkroom")
SUBFOLDERS = {"run": "runs", "model": "models", "version": "models", "copy": "models"}
TAG = "record"  # in MLflow: the digest of the latest record
TAGS = {"run": "tags", "model": "registered_model_tags", "version": "model_version_tags", "copy": "logged_model_tags"}
HERE = "artifacts:"  # in records: where the store keeps its artifacts, wherever the project lies
TEXT_LENGTH = 65536  # bytes up to which a record keeps the texts themselves at the top of a folder
NO_FILE = "no regular file"  # in place of a hash: a link, a pipe or the like
LOCATION = {"run": ("runs", "artifact_uri"), "copy": ("logged_models", "artifact_location")}


@dataclass(frozen=True)
class Record:
    """kind, key: of what, see `database.BELONGS`. store: see `address.current_store`. follows: a digest, or "".

    rows: what the store holds. files: {name: md5} of its folder; None where there is none. texts: some of these files.
    lost: files that were found gone or changed, and could not be put back.
    """

    kind: str
    key: str
    store: str
    rows: Rows
    files: Mapping[str, str] | None
    texts: Mapping[str, str] = field(default_factory=dict)
    follows: str = ""
    lost: tuple[str, ...] = ()

    @cached_property
    def content(self) -> bytes:
        """The file, which the same record always gives alike."""
        values = {name: value for name, value in vars(self).items() if name in self.__dataclass_fields__}
        return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def file(self) -> Path:
        return FOLDER / SUBFOLDERS[self.kind] / f"{self.digest}.json"

    @property
    def began(self) -> int:
        """When what it is of was made, in milliseconds since 1970."""
        return creation_time(self.rows)

    def save(self) -> None:
        """Write it, unless it is there. Raises OSError: it cannot be written."""
        file = project_root() / self.file
        if not file.exists():
            with atomic_path(file) as beside:
                beside.write_bytes(self.content)


@dataclass(frozen=True)
class RecordIndex:
    """The records of a store. latest: by kind and key, those that no other follows. damaged: files that are not what
    their names say. conflicting: further records of the same thing, of which none follows the other."""

    latest: Mapping[tuple[str, str], Record]
    digests: frozenset[str]
    damaged: tuple[Path, ...]
    conflicting: tuple[Record, ...]

    @classmethod
    def read(cls, of: str | None = None) -> "RecordIndex":
        """Read all records of a store, named by MLFLOW_TRACKING_URI unless another is named."""
        store = current_store() if of is None else of
        found: dict[str, Record] = {}
        damaged = []
        for file in sorted((project_root() / FOLDER).glob("*/*.json")):
            record = _read(file)
            if record is None:
                damaged.append(file.relative_to(project_root()))
            elif record.store == store:
                found[record.digest] = record
        followed = {record.follows for record in found.values()}
        latest: dict[tuple[str, str], Record] = {}
        conflicting = []
        for record in sorted(found.values(), key=lambda one: -_length(one, found)):
            if record.digest not in followed:
                if (record.kind, record.key) in latest:
                    conflicting.append(record)
                latest.setdefault((record.kind, record.key), record)
        return cls(latest, frozenset(found), tuple(damaged), tuple(conflicting))

    def began(self, kind: str) -> float:
        """Since when what is made of this kind leaves a record."""
        return min((record.began for record in self.latest.values() if record.kind == kind), default=float("inf"))


def current_record(
    tables: Tables, kind: str, key: str, before: Record | None = None, with_files: bool = True
) -> Record:
    """What the store holds of a thing now, as a record that follows the one `before`; no rows: it has no such thing."""
    rows = tables.rows(kind, key)
    tag = TAGS.get(kind, "")
    kept = {table: [_normal(tables, table, row) for row in found] for table, found in rows.items()}
    if tag in kept:
        kept[tag] = [row for row in kept[tag] if TAG not in (row.get("key"), row.get("tag_key"))]
    kept = {table: sorted(found, key=partial(json.dumps, sort_keys=True)) for table, found in kept.items() if found}
    folder = artifact_folder(tables, kind, rows) if with_files else None
    files = file_hashes(folder) if folder and folder.is_dir() else None
    texts = dict(_texts(folder, files)) if folder and files else {}
    follows, lost = (before.digest, before.lost) if before else ("", ())
    return Record(kind, key, current_store(), kept, files, texts, follows, lost)


def load(kind: str, digest: str) -> Record | None:
    """The record of this digest; None where it is not there, or is damaged."""
    return _read(project_root() / FOLDER / SUBFOLDERS[kind] / f"{digest}.json") if digest else None


def artifact_folder(tables: Tables, kind: str, rows: Rows) -> Path | None:
    """Where the files of a thing lie in the store, or would; None where it names a folder elsewhere, or none."""
    table, column = LOCATION.get(kind, ("", ""))
    if not rows.get(table):
        return None
    address = str(_normal(tables, table, rows[table][0])[column])
    folder = artifacts_folder(resolve_artifacts(tables, address)) if address.startswith(f"{HERE}/") else None
    return folder if folder is not None and ".." not in folder.parts else None


def link_to(folder: Path) -> Path | None:
    """The link in the project's store through which a folder is reached; None where there is none."""
    store = own_artifacts()
    if not folder.is_relative_to(store):
        return None
    segments = folder.relative_to(store).parts
    return next((path for n in range(len(segments) + 1) if (path := store.joinpath(*segments[:n])).is_symlink()), None)


def resolve_artifacts(tables: Tables, address: str) -> str:
    """The address of artifacts that a record names, in this store."""
    if not address.startswith(HERE):
        return address
    return (tables.location if tracking_uri() else artifacts_address(own_artifacts())) + address.removeprefix(HERE)


def own_artifacts() -> Path:
    """Where the project's own store keeps its artifacts."""
    return project_root() / STORE / "artifacts"


def tagged_digest(rows: Rows, kind: str) -> str:
    """The digest that MLflow's tag gives; "" where there is no such tag."""
    found = rows.get(TAGS[kind], [])
    values = [row.get("value", row.get("tag_value")) for row in found if TAG in (row.get("key"), row.get("tag_key"))]
    return str(values[0]) if values else ""


def creation_time(rows: Rows) -> int:
    """When a thing began to be, in milliseconds since 1970; 0 where no row says so."""
    for names in ("start_time", "creation_time", "creation_timestamp_ms"):
        for row in (row for found in rows.values() for row in found):
            if names in row:
                return int(row[names] or 0)
    return 0


def file_hashes(folder: Path) -> dict[str, str]:
    """{name: md5} of all that lies in a folder, several at a time; what is neither file nor folder is `NO_FILE`.

    Nothing, where a link leads there: what lies elsewhere is not the store's.
    """
    found = [] if link_to(folder) else folder.rglob("*")
    files = [path for path in found if path.is_symlink() or not path.is_dir()]
    with ThreadPoolExecutor() as pool:
        return {
            file.relative_to(folder).as_posix(): md5 for file, md5 in zip(files, pool.map(_hash, files), strict=True)
        }


def _hash(file: Path) -> str:
    try:
        return file_hash(file) if stat.S_ISREG(file.lstat().st_mode) else NO_FILE
    except OSError:
        return NO_FILE


def _texts(folder: Path, files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The small texts at the top of a folder, which nobody else keeps: what describes a run or a model."""
    for name, md5 in files.items():
        file = folder / name
        if "/" not in name and md5 != NO_FILE and file.stat().st_size <= TEXT_LENGTH:
            try:
                text = file.read_bytes().decode()
            except UnicodeDecodeError:
                continue
            yield name, text


def _normal(tables: Tables, table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose paths of artifacts are relative to the folder of the store, which may move."""
    found = dict(row)
    for one, column in ARTIFACT_PATHS:
        if one == table and isinstance(found.get(column), str):
            found[column] = _from_here(tables, found[column])
    return found


def _from_here(tables: Tables, address: str) -> str:
    here = artifacts_address(own_artifacts())
    for root in (*(() if tracking_uri() else (here,)), tables.location):
        if root and (address == root or address.startswith(f"{root}/")):
            return HERE + address[len(root) :]
    if not tracking_uri() and (moved := moved_to(address, own_artifacts())):
        return f"{HERE}/{moved.relative_to(own_artifacts()).as_posix()}"
    return address


def _length(record: Record, known: Mapping[str, Record]) -> int:
    """How many records it follows."""
    length, seen = 0, set[str]()
    while record.follows in known and record.follows not in seen:
        seen.add(record.follows)
        record, length = known[record.follows], length + 1
    return length


def _read(file: Path) -> Record | None:
    """The record in a file; None where the file is not what its name says."""
    try:
        if not stat.S_ISREG(file.lstat().st_mode):  # of a pipe, nothing would ever come
            return None
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != file.stem:
            return None
        values = json.loads(content)
        record = Record(**{**values, "lost": tuple(values["lost"])})
        return record if record.kind in SUBFOLDERS and record.digest == file.stem else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
