"""Copies of outputs in MLflow's store on this machine, of runs that nothing refers to.

The runs stay, with parameters, curves and pictures: they tell what was tried. What goes are the copies of weights and
data that they wrote, which a new record of the run no longer lists.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from darkroom.config.paths import ARTIFACTS
from darkroom.maintenance.garbage.item import Item
from darkroom.maintenance.garbage.references import References
from darkroom.maintenance.sizes import BLOCK, size_of
from darkroom.tracking.address import tracking_uri
from darkroom.tracking.database import Tables
from darkroom.tracking.query import RunQuery
from darkroom.tracking.record_sync import deviations
from darkroom.tracking.records import artifact_folder
from darkroom.tracking.sources import run_of
from darkroom.tracking.store import Store

KIND = "copies in MLflow"
COPIED = (ARTIFACTS.name, "data")  # where outputs lie that are more than a report
OPEN = ("RUNNING", "SCHEDULED")
TAG = "copies"  # of a run: what became of its copies
REMOVED = "removed by darkroom gc"


def unreferenced_copies(query: RunQuery, tables: Tables, kept: References) -> list[Item]:
    """An item for each run none of whose outputs are referred to, and that keeps copies of them.

    In a store that projects may share, only of runs that this one has a record of: what others refer to is not known.
    """
    unshared = not tracking_uri()
    runs = [run for run in tables.keys("run") if unshared or ("run", run) in query.records.latest]
    return [item for run in runs if run not in kept.runs for item in _of_run(query, tables, kept, run)]


def remove_copies(items: Sequence[Item], query: RunQuery) -> Iterator[str]:
    """Remove them and write down that they are gone. Yields, in words, what was left alone because it is not as it was
    recorded: the new record would vouch for it."""
    store = Store()
    versions = query.registered()
    for item in items:
        if wrong := deviations(store.address, "run", item.run):
            yield f"{item.what}: is not as it was recorded ({wrong[0]}), and stays; see darkroom audit --all-runs"
            continue
        for path in item.paths:
            shutil.rmtree(path, ignore_errors=True)
        _remove_if_empty({path.parent for path in item.paths})
        store.client.set_tag(item.run, TAG, REMOVED)
        _record(store, query, "run", item.run)
        for version in versions:
            if version.run == item.run and any(str(path) in version.source for path in item.paths):
                said = store.client.get_model_version(version.name, version.number).description or ""
                store.client.update_model_version(version.name, version.number, f"{said} (copy {REMOVED})".lstrip())
                _record(store, query, "version", version.key)


def _record(store: Store, query: RunQuery, kind: str, key: str) -> None:
    """Write down what is there now, after what was written down before; of what no record is here, none is made: it
    would vouch for what nobody has compared."""
    if (kind, key) in query.records.latest:
        store.keep_record(kind, key, again=True)


def _of_run(query: RunQuery, tables: Tables, kept: References, run: str) -> Iterator[Item]:
    rows = tables.rows("run", run)
    made, folder = run_of(tables, rows), artifact_folder(tables, "run", rows)
    outputs = {path: md5 for path, md5 in made.outputs.items() if Path(path).parts[0] in COPIED}
    if folder is None or made.status in OPEN or any(pair in kept.outputs for pair in outputs.items()):
        return
    paths = tuple(folder / path for path in outputs if (folder / path).is_dir() and not (folder / path).is_symlink())
    size = size_of(paths) - _record_size(query, run)
    if paths and size > 0:
        what = f"{made.stage} {run[:8]}: {', '.join(path.relative_to(folder).as_posix() for path in paths)}"
        deleted = ", deleted in MLflow" if made.deleted else ""
        yield Item(KIND, f"{what}{deleted}", paths, size, run)


def _record_size(query: RunQuery, run: str) -> int:
    """What the record will take that says that the copies are gone: about as much as the one before."""
    record = query.records.latest.get(("run", run))
    return -(-len(record.content) // 4096) * 8 * BLOCK if record else 0


def _remove_if_empty(folders: set[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
