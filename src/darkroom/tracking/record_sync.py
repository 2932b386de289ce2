"""Keeping records: when a run is closed and when a pipeline is registered, and putting back what they say."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from darkroom.core.artifact import atomic_path, remove
from darkroom.tracking.address import database_file, project_root
from darkroom.tracking.database import Rows, Tables, put_back
from darkroom.tracking.differences import differences, merged
from darkroom.tracking.records import (
    TAG,
    TAGS,
    Record,
    RecordIndex,
    artifact_folder,
    current_record,
    file_hashes,
    link_to,
    load,
    resolve_artifacts,
    tagged_digest,
)

Client = Any  # MLflow's
Find = Callable[[str], Path | None]  # a file with this md5


def write_record(client: Client, address: str, kind: str, key: str, again: bool = False) -> None:
    """Write down what the store holds of a thing, and its digest into the store; only where its database is here.

    again: also where there is a record, which the new one follows unless it says the same.
    Raises OSError: it cannot be written. DarkroomError: the store cannot be read.
    """
    file = database_file(address)
    if file is None:
        return
    tables = Tables(file)
    before = load(kind, tagged_digest(tables.rows(kind, key), kind))
    if before is not None and not again:
        return
    record = current_record(tables, kind, key, before)
    if before is not None and not differences(before, record):
        return
    record.save()
    set_tag(client, kind, key, record.digest)


def set_tag(client: Client, kind: str, key: str, digest: str) -> None:
    if kind == "run":
        client.set_tag(key, TAG, digest)
    elif kind == "model":
        client.set_registered_model_tag(key, TAG, digest)
    elif kind == "version":
        name, _, version = key.rpartition("/")
        client.set_model_version_tag(name, version, TAG, digest)
    else:
        client.set_logged_model_tags(key, {TAG: digest})


def deviations(address: str, kind: str, key: str) -> list[str]:
    """How a thing in the store differs from its latest record; nothing where it has none."""
    file = database_file(address)
    record = None if file is None else RecordIndex.read().latest.get((kind, key))
    if file is None or record is None:
        return []
    return differences(record, current_record(Tables(file), kind, key))


def restore(tables: Tables, record: Record, find: Find) -> tuple[str, ...]:
    """Have the store hold again what a record says, rows and files; the names of files that nobody has any more.

    These are written down as lost, in a record that follows. What is in the folder and not in the record is taken away.

    Args:
        find: a file with this md5.

    Raises OSError: something cannot be written.
    """
    rows = _resolve_rows(tables, merged(record, current_record(tables, record.kind, record.key, with_files=False)))
    _put_rows(tables, record, rows)
    folder = artifact_folder(tables, record.kind, rows)
    if folder is not None and record.files is None and record.kind == "copy":  # it never had files
        remove(folder)
    lost = () if folder is None or record.files is None else _put_files(folder, record, record.files, find)
    if lost and record.files is not None:
        files = {name: md5 for name, md5 in record.files.items() if name not in lost}
        after = replace(record, files=files, follows=record.digest, lost=(*record.lost, *lost))
        after.save()
        _put_rows(tables, after, rows)
    return lost


def delete(tables: Tables, kind: str, key: str) -> None:
    """Delete a thing: runs and copies as MLflow does, which can bring them back, others for good."""
    rows = tables.rows(kind, key)
    for row in (*rows.get("runs", []), *rows.get("logged_models", [])):
        row["lifecycle_stage"] = "deleted"
    put_back(tables.file, kind, key, rows if kind in ("run", "copy") else {})


def _put_rows(tables: Tables, record: Record, rows: Rows) -> None:
    table = TAGS[record.kind]
    put_back(tables.file, record.kind, record.key, {**rows, table: [*rows.get(table, []), _tag(rows, record)]})


def _put_files(folder: Path, record: Record, files: Mapping[str, str], find: Find) -> tuple[str, ...]:
    """The files of a record; the names of those that nobody has."""
    while link := link_to(folder):
        link.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    here, lost = file_hashes(folder), []
    found = {name: find(md5) for name, md5 in files.items() if here.get(name) != md5 and name not in record.texts}
    for name, md5 in files.items():
        if here.get(name) == md5:
            continue
        for n in range(1, len(Path(name).parts) + 1):  # what stands where a folder belongs
            path = folder.joinpath(*Path(name).parts[:n])
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                path.unlink()
        source = found.get(name)
        if name in record.texts:
            with atomic_path(folder / name) as beside:
                beside.write_bytes(record.texts[name].encode())
        elif source is not None and source.is_file():
            with atomic_path(folder / name) as beside:
                shutil.copyfile(source, beside)
        else:
            remove(folder / name)
            lost.append(name)
    for name in file_hashes(folder).keys() - files.keys():
        remove(folder / name)
    return tuple(sorted(lost))


def is_damaged(file: Path) -> bool:
    """Whether a record's file, given relative to the project, is there and not what its name says."""
    path = project_root() / file
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != file.stem


def rebuild_record(tables: Tables, kind: str, key: str, digest: str, records: RecordIndex) -> Record | None:
    """The record of this digest, whose file is gone or damaged, as the store still has all that it said; else None."""
    for before in (None, records.latest.get((kind, key))):
        record = current_record(tables, kind, key, before)
        if record.digest == digest:
            return record
    return None


def _resolve_rows(tables: Tables, rows: Rows) -> Rows:
    """Rows of a record as this store holds them: with its own places and its own experiment."""
    found = {
        table: [
            {name: resolve_artifacts(tables, value) if isinstance(value, str) else value for name, value in row.items()}
            for row in some
        ]
        for table, some in rows.items()
    }
    for row in (row for some in found.values() for row in some):
        if "experiment_id" in row:
            row["experiment_id"] = tables.experiment
    return found


def _tag(rows: Rows, record: Record) -> dict[str, Any]:
    run = rows.get("runs") or rows.get("registered_models") or rows.get("model_versions") or rows["logged_models"]
    row = run[0]
    columns = {
        "run": ("run_uuid",),
        "model": ("name", "workspace"),
        "version": ("name", "version", "workspace"),
        "copy": ("model_id", "experiment_id"),
    }[record.kind]
    key, value = ("tag_key", "tag_value") if record.kind == "copy" else ("key", "value")
    return {key: TAG, value: record.digest, **{column: row[column] for column in columns if column in row}}
