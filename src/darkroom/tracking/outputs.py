"""The outputs of a stage in its run: their content, copies where they are small, versions of models, the note."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from darkroom.config.paths import ARTIFACTS, LATENTS, PREPARED
from darkroom.core.artifact import atomic_path, content_hash, files_of
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import readable_size
from darkroom.tracking.checkpoint_models import Checkpoint, log_checkpoint
from darkroom.tracking.links import Maker, fitted, leads, makers_behind
from darkroom.tracking.note import NOTE, Account, markdown
from darkroom.tracking.outbox.event_log import EventLog
from darkroom.tracking.outbox.events import Outputs
from darkroom.tracking.store import VALUE_LENGTH, Store

COPY_MIB = 64.0  # larger files are named in the run, not copied into it; DARKROOM_TRACKING_COPY_MIB changes it
DATA_COPY_MIB = 1.0
DATA_COPIED = (".json", ".png")  # of data sets: their descriptions and contact sheets
MEASURED_ON = (PREPARED.as_posix(), LATENTS.as_posix())  # a stage's figures: on the first of these that it reads
REMARKS = 200  # characters of a version's description that others may add
MANIFEST = "manifest.json"  # artifact of a run: its account
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
    if file.parts[0] == "data":
        return is_kept(file)
    return file.stat().st_size <= copy_mib * 2**20


def is_kept(file: Path) -> bool:
    """Whether a file of the data goes into the run: one to be looked at."""
    return file.suffix in DATA_COPIED and file.stat().st_size <= DATA_COPY_MIB * 2**20


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
    behind = makers_behind(store, account.inputs)
    links = leads(store, _maker(run, account), behind)
    locations, pages = dict[str, str](), dict[str, str]()
    for path, digest in account.outputs.items():
        files = _sources(outputs, path, digest, folder, fresh)
        for name, file in files.items():
            store.log_file(run, file, Path(name).parent.as_posix())
        locations[path] = readable_size(outputs.sizes[path])
        if files:
            pages[path] = store.run_link(run, f"/artifacts/{path}")
        if Path(path).parent == ARTIFACTS:
            copied = path in outputs.complete and len(files) == len(outputs.copied[path])
            locations[path] += f", {_register(store, run, account, path, copied, links)}"
    origins = {}
    for path, digest in account.inputs.items():
        if maker := next((one for one in behind if one.outputs.get(path) == digest), None):
            account.made_by[path] = maker.run
            pages[path] = store.run_link(maker.run, f"/artifacts/{path}")
            origins[path] = f"[{maker.name}]({store.run_link(maker.run)})"
    with tempfile.TemporaryDirectory() as beside:
        manifest = Path(beside) / MANIFEST
        manifest.write_text(json.dumps(asdict(account), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        store.log_file(run, manifest)
    rest = f"The rest: [{MANIFEST}]({store.run_link(run, f'/artifacts/{MANIFEST}')})"
    note = markdown(account, origins, locations, pages, links)
    store.set_tags(run, {NOTE: fitted(note, VALUE_LENGTH, rest)})


def _maker(run: str, account: Account) -> Maker:
    return Maker(
        run,
        account.stage,
        account.inputs,
        account.outputs,
        account.commit,
        account.dirty,
        account.why_unknown,
        account.repository,
    )


def _register(store: Store, run: str, account: Account, path: str, copied: bool, links: str) -> str:
    """Register what a stage wrote to artifacts/NAME, and log it as a checkpoint; a link to the version."""
    digest, model = account.outputs[path], f"darkroom-{Path(path).name.replace('_', '-')}"
    made = f"`{path}` as [{account.stage}]({store.run_link(run)}) wrote it: content `{digest}`.\n\n{links}"
    about = fitted(made, VALUE_LENGTH - REMARKS, "")
    version = store.register(run, model, path, digest, copied, about)
    data = next((name for name in MEASURED_ON if name in account.inputs), None)
    measured_on = None if data is None else (data, account.inputs[data])
    log_checkpoint(store, run, Checkpoint(model, version, path, digest, account.figures, measured_on, about))
    return f"[{model} version {version}]({store.model_link(model, version)})"


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
