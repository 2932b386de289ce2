"""The outputs of a stage in its run: their content, copies where they are small, versions of models, the note."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from darkroom.config.paths import ARTIFACTS
from darkroom.core.artifact import atomic_path, content_hash, files_of
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import readable_size
from darkroom.tracking.note import NOTE, Account, markdown
from darkroom.tracking.outbox.event_log import EventLog
from darkroom.tracking.outbox.events import Outputs
from darkroom.tracking.store import Store

COPY_MIB = 64.0  # larger files are named in the run, not copied into it; DARKROOM_TRACKING_COPY_MIB changes it
DATA_COPY_MIB = 1.0
DATA_COPIED = (".json", ".png")  # of data sets: their descriptions and contact sheets
KEPT = "outputs"  # where an event log keeps what later stages may replace


def copy_limit() -> float:
    """MiB up to which a file is copied into the run."""
    value = os.environ.get("DARKROOM_TRACKING_COPY_MIB", str(COPY_MIB))
    try:
        return float(value)
    except ValueError:
        raise DarkroomError(f"DARKROOM_TRACKING_COPY_MIB = {value!r}: give a number of MiB") from None


def describe_outputs(account: Account, copy_mib: float) -> Outputs:
    """What a stage has written, as its account says, in the current folder."""
    sizes: dict[str, int] = {}
    copied: dict[str, list[str]] = {}
    complete: list[str] = []
    for path in account.outputs:
        files = files_of(Path(path))
        copied[path] = [file.as_posix() for file in files if _is_copied(file, copy_mib)]
        sizes[path] = sum(file.stat().st_size for file in files)
        if len(copied[path]) == len(files):
            complete.append(path)
    return Outputs(asdict(account), str(Path.cwd()), sizes, copied, complete)


def _is_copied(file: Path, copy_mib: float) -> bool:
    mib = file.stat().st_size / 2**20
    if file.parts[0] == "data":
        return file.suffix in DATA_COPIED and mib <= DATA_COPY_MIB
    return mib <= copy_mib


def keep_outputs(event_log: EventLog) -> None:
    """Copy what is still to go into the run into the log's folder: a later stage may replace it before it is sent.

    Raises OSError: there is no room for it.
    """
    for event, _ in event_log.unsent():
        if isinstance(event, Outputs):
            for file in (file for files in event.copied.values() for file in files):
                with atomic_path(event_log.folder / KEPT / file) as beside:
                    shutil.copyfile(Path(event.root, file), beside)


def log_outputs(store: Store, run: str, outputs: Outputs, folder: Path, fresh: bool) -> None:
    """Put a stage's outputs, its manifest and its note into the run.

    `folder`: of the event log. `fresh`: the outputs are as the stage wrote them; else those whose content is another
    one by now, and of which no copy was kept, are only named.
    """
    account = Account(**outputs.account)
    store.set_tags(run, {f"out.{path}": digest for path, digest in account.outputs.items()})
    locations, pages = dict[str, str](), dict[str, str]()
    for path, digest in account.outputs.items():
        files = _sources(outputs, path, digest, folder, fresh)
        for name, file in files.items():
            store.log_file(run, file, Path(name).parent.as_posix())
        locations[path] = readable_size(outputs.sizes[path])
        if files:
            pages[path] = store.run_link(run, f"/artifacts/{path}")
            locations[path] = f"([{locations[path]}]({pages[path]}))"
        if Path(path).parent == ARTIFACTS:
            model = f"darkroom-{Path(path).name.replace('_', '-')}"
            copied = path in outputs.complete and len(files) == len(outputs.copied[path])
            version = store.register(run, model, path, digest, copied)
            locations[path] += f", [{model} version {version}]({store.model_link(model, version)})"
    origins = {}
    for path, digest in account.inputs.items():
        if maker := store.find_maker(path, digest):
            account.made_by[path] = maker[0]
            pages[path] = store.run_link(maker[0], f"/artifacts/{path}")
            origins[path] = f"[{maker[1]}]({store.run_link(maker[0])})"
    with tempfile.TemporaryDirectory() as beside:
        manifest = Path(beside) / "manifest.json"
        manifest.write_text(json.dumps(asdict(account), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        store.log_file(run, manifest)
    store.set_tags(run, {NOTE: markdown(account, origins, locations, pages)})


def _sources(outputs: Outputs, path: str, digest: str, folder: Path, fresh: bool) -> Mapping[str, Path]:
    """Where the files of an output that go into the run are found, by their names."""
    names = outputs.copied[path]
    kept = {name: folder / KEPT / name for name in names}
    if all(file.is_file() for file in kept.values()):
        return kept
    if not fresh:
        try:
            fresh = content_hash(Path(outputs.root, path)) == digest
        except (DarkroomError, OSError):
            fresh = False
    return {name: Path(outputs.root, name) for name in names} if fresh else {}
