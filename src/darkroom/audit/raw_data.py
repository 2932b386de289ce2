"""Files from outside the project, held against the manifest that a stage's parameters name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from darkroom.audit.disk import Disk
from darkroom.audit.findings import Finding, some
from darkroom.audit.lineage import Step
from darkroom.core.artifact import file_hash
from darkroom.core.errors import DarkroomError
from darkroom.data.images import SUFFIXES, UNREAD
from darkroom.data.manifest import RESCAN, Files, Manifest, manifest_of
from darkroom.tracking.repository import md5_at_head

# How the files that a kind of source reads end, as in data/sources, which cannot be asked: they import torch.
# Of sources not named here the files are fixed, and none can be new.
ENDINGS = {
    "image_folder": (*SUFFIXES, *UNREAD),
    "captioned_folder": (*SUFFIXES, *UNREAD, ".txt", "metadata.jsonl", "metadata.csv", "metadata.tsv"),
    "webdataset": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"),
}


def check_raw_data(step: Step, disk: Disk) -> Iterator[Finding]:
    """What is changed, gone or new since the manifest was written; nothing for a stage that reads no such files."""
    for values in step.params.values():
        section = values.get(step.stage)
        source = section.get("source") if isinstance(section, Mapping) else None
        if isinstance(source, Mapping) and source.get("manifest"):
            yield from _check(step, source, disk)


def _check(step: Step, source: Mapping[str, Any], disk: Disk) -> Iterator[Finding]:
    file = manifest_of(str(source.get("root", ".")), source["manifest"])
    assert file is not None
    try:
        manifest = Manifest.load(file)
    except DarkroomError as error:
        what, _, remedy = str(error).removeprefix(f"{file}: ").partition("; ")
        yield step.finding("raw data", what, _as_committed(file) or remedy, str(file))
        return
    root = Files(str(source.get("root", "."))).root
    if not any((root / name).exists() for name in manifest.files):
        what = f"none of the {len(manifest.files)} files of {manifest.path} is here, so they were not compared"
        yield step.finding("no raw data", what, "set DARKROOM_DATA to where they lie", str(root))
        return
    disk.expect_files(root / name for name in manifest.files)
    found = {name: disk.of_file(root / name) for name in manifest.files}
    gone = [name for name, md5 in found.items() if md5 is None]
    changed = [name for name, entry in manifest.files.items() if found[name] not in (None, entry.md5)]
    new = _new(root, source, found)
    back, away = "put them back", "take them away"
    for names, word, remedy in ((gone, "gone", back), (changed, "changed", back), (new, "new", away)):
        if names:
            what = f"not as {manifest.path} has it: {some(names)} {word}"
            yield step.finding("raw data", what, _as_committed(file) or f"{remedy}; {RESCAN}", str(root))


def _as_committed(file: Path) -> str:
    """The command that brings back a manifest that is not as it was committed; empty where it is, or was not."""
    committed = md5_at_head(file.as_posix())
    changed = committed is not None and (not file.is_file() or file_hash(file) != committed)
    return f"git checkout HEAD -- {file.as_posix()}" if changed else ""


def _new(root: Path, source: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """Files that the source would read, but which its manifest does not list."""
    suffixes = ENDINGS.get(str(source.get("kind")))
    if suffixes is None:
        return []
    return [name for name in Files(str(root.absolute()), suffixes=suffixes).names if name not in known]
