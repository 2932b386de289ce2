"""Files from outside the project, held against the manifest that a stage's parameters name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from darkroom.audit.disk import Disk
from darkroom.audit.findings import Finding, some
from darkroom.audit.lineage import Step
from darkroom.core.errors import DarkroomError
from darkroom.data.manifest import RESCAN, Files, Manifest


def check_raw_data(step: Step, disk: Disk) -> Iterator[Finding]:
    """What is changed, gone or new since the manifest was written; nothing for a stage that reads no such files."""
    for values in step.params.values():
        section = values.get(step.stage)
        source = section.get("source") if isinstance(section, Mapping) else None
        if isinstance(source, Mapping) and source.get("manifest"):
            yield from _check(step, source, disk)


def _check(step: Step, source: Mapping[str, Any], disk: Disk) -> Iterator[Finding]:
    here = (step.stage,)
    try:
        manifest = Manifest.load(source["manifest"])
    except DarkroomError as error:
        what, _, remedy = str(error).removeprefix(f"{source['manifest']}: ").partition("; ")
        yield Finding("raw data", str(source["manifest"]), what, remedy, here)
        return
    root = Files(str(source.get("root", "."))).root
    if not any((root / name).exists() for name in manifest.files):
        what = f"none of the {len(manifest.files)} files of {manifest.path} is here, so they were not compared"
        yield Finding("no raw data", str(root), what, "set DARKROOM_DATA to where they lie", here)
        return
    disk.expect(root / name for name in manifest.files)
    found = {name: (disk.listing(root / name) or {}).get("") for name in manifest.files}
    gone = [name for name, md5 in found.items() if md5 is None]
    changed = [name for name, entry in manifest.files.items() if found[name] not in (None, entry.md5)]
    back, away = "put them back", "take them away"
    for names, word, remedy in ((gone, "gone", back), (changed, "changed", back), (_new(root, found), "new", away)):
        if names:
            what = f"not as {manifest.path} has it: {some(names)} {word}"
            yield Finding("raw data", str(root), what, f"{remedy}; {RESCAN}", here)


def _new(root: Path, known: Mapping[str, Any]) -> list[str]:
    """Files of the kinds that the manifest has, but which it does not list; none where files have no suffixes."""
    suffixes = {Path(name).suffix.lower() for name in known}
    if "" in suffixes:
        return []
    return [name for name in Files(str(root.absolute()), suffixes=tuple(suffixes)).names if name not in known]
