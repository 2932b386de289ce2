"""What the store holds otherwise than a record says, in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from darkroom.tracking.database import Rows
from darkroom.tracking.records import Record

ROWS = {  # table: what a row of it is called, and the columns by which rows are told apart
    "runs": ("", ()),
    "params": ("parameter", ("key",)),
    "latest_metrics": ("metric", ("key",)),
    "metrics": ("curve", ("key", "step", "timestamp", "value", "is_nan")),
    "tags": ("tag", ("key",)),
    "datasets": ("input", ("dataset_uuid",)),
    "inputs": ("link to input or model", ("source_id", "destination_id")),
    "input_tags": ("tag of input", ("input_uuid", "name")),
    "registered_models": ("", ()),
    "registered_model_tags": ("tag", ("key",)),
    "registered_model_aliases": ("alias", ("alias",)),
    "model_versions": ("", ()),
    "model_version_tags": ("tag", ("key",)),
    "logged_models": ("", ()),
    "logged_model_params": ("parameter", ("param_key",)),
    "logged_model_tags": ("tag", ("tag_key",)),
    "logged_model_metrics": ("metric", ("metric_name", "metric_step", "metric_timestamp_ms", "run_id")),
    "experiments": ("", ()),
    "experiment_tags": ("tag", ("key",)),
}
VALUES = ("value", "param_value", "tag_value", "metric_value", "version", "digest")  # columns that hold what a row says
MOVING = {  # columns that MLflow itself changes later
    "runs": ("lifecycle_stage", "deleted_time"),
    "registered_models": ("last_updated_time",),
    "model_versions": ("last_updated_time",),
    "logged_models": ("last_updated_timestamp_ms",),
    "experiments": ("last_update_time",),
}
DELETED_VERSION = "Deleted_Internal"  # the stage of a version that was deleted in MLflow
# Tags and aliases are where people may add what they like; under these names Darkroom and MLflow say something.
OWN_TAGS = ("mlflow.", "in.", "out.", "git.", "dvc.", "process.", "gate", "resumed.")
OWN_NAMES = ("stage", "code", "profile", "journal", "copy", "audit", "content", "record", "candidate")
MAY_BE_ADDED = {"tags", "registered_model_tags", "model_version_tags", "logged_model_tags", "registered_model_aliases"}
LENGTH = 60  # characters of a value that are shown


def differences(record: Record, now: Record) -> list[str]:
    """How what there is now differs from the record: rows first, then files; what may be added is none."""
    if not now.rows:
        return ["gone"]
    found = list(_of_rows(record.rows, now.rows))
    if record.files is not None and now.files is not None:
        found += _of_files(record.files, now.files)
    elif record.files and record.kind == "copy":
        found.append("its files are gone")
    elif now.files and record.kind == "copy":
        found.append(f"files were added: {', '.join(sorted(now.files)[:3])}")
    return found


def additions(record: Record, now: Record) -> list[str]:
    """What people have added to a thing, such as tags; nobody vouches for it."""
    return [description for table, description, _ in _added(record.rows, now.rows) if table in MAY_BE_ADDED]


def merged(record: Record, now: Record) -> Rows:
    """The rows of a record, with what may be added to it, and what MLflow has changed since as it is."""
    rows = {table: [dict(row) for row in found] for table, found in record.rows.items()}
    for table, _, row in _added(record.rows, now.rows):
        rows.setdefault(table, []).append(dict(row))
    for table, columns in MOVING.items():
        for row, there in zip(rows.get(table, []), now.rows.get(table, []), strict=False):
            row.update({column: there[column] for column in columns if column in there})
    return rows


def is_deleted(now: Record) -> bool:
    """Whether a thing was deleted by MLflow's own ways, which leave a mark."""
    rows = (*now.rows.get("runs", []), *now.rows.get("logged_models", []))
    versions = now.rows.get("model_versions", [])
    return any(row.get("lifecycle_stage") == "deleted" for row in rows) or any(
        row.get("current_stage") == DELETED_VERSION for row in versions
    )


def _of_rows(before: Rows, now: Rows) -> Iterator[str]:
    for table, (called, _) in ROWS.items():
        had, has = _by_key(table, before), _by_key(table, now)
        points: dict[str, int] = {}
        for key, row in had.items():
            name = f"{called} {_name(row)}".strip()
            if key not in has:
                if table == "metrics":
                    points[name] = points.get(name, 0) + 1
                else:
                    yield f"{name} is gone" if called else "its row is gone"
                continue
            for column, value in row.items():
                if column not in MOVING.get(table, ()) and has[key].get(column) != value:
                    what = name if column in VALUES and called else f"{column} of {name}" if called else column
                    yield f"{what} is {_short(has[key].get(column))}, was {_short(value)}"
        for new, description, added in _added({table: before.get(table, [])}, {table: now.get(table, [])}, every=True):
            if table == "metrics":
                points.setdefault(f"{called} {_name(added)}", 0)
            elif not _may_be_added(new, added):
                yield f"{description} was added"
        for name, n in points.items():
            yield f"{name} has other points" + (f", {n} of them gone" if n else "")


def _added(before: Rows, now: Rows, every: bool = False) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(table, in words, row) of what is there now and was not; `every`: also what nobody may add."""
    for table, (called, _) in ROWS.items():
        had = _by_key(table, before)
        for key, row in _by_key(table, now).items():
            if key not in had and (every or _may_be_added(table, row)):
                yield table, f"{called} {_name(row)}".strip(), row


def _may_be_added(table: str, row: Mapping[str, Any]) -> bool:
    name = str(_name(row))
    return table in MAY_BE_ADDED and not name.startswith(OWN_TAGS) and name not in OWN_NAMES


def _of_files(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            change = "is gone" if name not in now else "was added" if name not in before else "was changed"
            yield f"file {name} {change}"


def _by_key(table: str, rows: Rows) -> dict[tuple[Any, ...], dict[str, Any]]:
    columns = ROWS[table][1]
    return {tuple(row.get(column) for column in columns): row for row in rows.get(table, [])}


def _name(row: Mapping[str, Any]) -> Any:
    columns = ("key", "param_key", "tag_key", "metric_name", "alias", "name", "source_id")
    return next((row[column] for column in columns if column in row), "")


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= LENGTH else f"{text[:LENGTH]}…"
