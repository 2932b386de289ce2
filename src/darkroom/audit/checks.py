"""Compares dvc.lock with what lies on the disk and in DVC's cache, with params.yaml and with dvc.yaml."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from darkroom.audit.disk import FOLDER_MARK, Cache, Disk
from darkroom.audit.file_types import foreign, kind
from darkroom.audit.findings import Finding, short, some
from darkroom.audit.lineage import Lineage, Step
from darkroom.config.stage_spec import PIPELINE, StageSpec
from darkroom.config.yaml_file import Loader
from darkroom.core.artifact import PROVENANCE, read_json
from darkroom.core.dvc_settings import has_remote
from darkroom.core.errors import DarkroomError
from darkroom.tracking.repository import git_text_or_none, head_holds, md5_at_head
from darkroom.tracking.run import flat


class Checks:
    """The lineage of dvc.lock, held against files."""

    def __init__(self, lineage: Lineage, specs: Mapping[str, StageSpec], disk: Disk, cache: Cache) -> None:
        self.lineage, self.specs, self.disk, self.cache = lineage, specs, disk, cache

    def expect(self) -> None:
        for step in self.lineage.steps.values():
            self.disk.expect(map(Path, (*step.outputs, *step.inputs, *step.code)))
            self.cache.expect(digest for path, digest in step.outputs.items() if path not in step.uncached)

    def unexpected(self, path: str, digest: str) -> dict[Path, str]:
        """What is of another kind at an output, in it or above it than was written there: {path: kind in words}."""
        found, here = self.disk.scan(Path(path)), Path(path)
        if found is None:
            return {}
        unexpected = dict(found.foreign)
        if not unexpected and found.folder != digest.endswith(FOLDER_MARK):
            unexpected[here] = kind(here) or "gone"
        before = (self.cache.listing(digest) or {}) if found.folder else {}
        gone = before.keys() - found.files.keys()
        unexpected |= {here / name: "a folder" for name in gone if kind(here / name) == "a folder"}
        folders = {above.as_posix() for name in before for above in Path(name).parents}
        return unexpected | {here / name: "a file" for name in found.files.keys() & folders}

    def differs(self, step: Step) -> dict[str, str]:
        """The outputs of a stage that are there but not as dvc.lock has them, with the hashes they have."""
        looked = {path: digest for path, digest in step.outputs.items() if not self.unexpected(path, digest)}
        found = {path: self.disk.digest(Path(path), digest) for path, digest in looked.items()}
        return {path: digest for path, digest in found.items() if digest not in (None, step.outputs[path])}

    def tampered(self, step: Step, path: str) -> Finding:
        """That an output differs, for no reason known."""
        names = self._changed(path, step.outputs[path])
        kind = "tampered report" if path in step.uncached else "tampered"
        what = f"not as {step.stage} wrote it" + (f": {names}" if names else "")
        return step.finding(kind, what, self.restore(step, path), path)

    def outputs(self, step: Step) -> Iterator[Finding]:
        """What is missing on the disk, or broken or missing in the cache."""
        gone: dict[str, list[str]] = {}
        for path in step.outputs:
            if self.disk.scan(Path(path)) is None:
                gone.setdefault(self._restore_command(step, path)[0], []).append(path)
        for command, paths in gone.items():
            remedy = " ".join([command, *dict.fromkeys(self._restore_command(step, path)[1] for path in paths)])
            yield step.finding("missing", f"written by {step.stage}, and gone", remedy, ", ".join(paths))
        for path, digest in step.outputs.items():
            if path in step.uncached:
                continue
            for broken, why in self.cache.corrupt(digest).items():
                stored = self.cache.object_path(broken)
                what = f"{why}, which is {self._object(path, digest, broken)}"
                away = f"rm -{'rf' if stored.is_dir() else 'f'} {stored}"
                if foreign(stored.parent, "a folder"):  # once for all that lies there
                    stored, away = stored.parent, f"find {stored.parent} -maxdepth 0 ! -type d -delete"
                yield step.finding("corrupt cache", what, f"{away} && {self._recache_command(step, path)}", str(stored))
            if self.disk.listing(Path(path)) is not None and self.cache.lacks(digest):
                what = "not in DVC's cache, which could not give it back"
                yield step.finding("not in cache", what, self._recache_command(step, path), path)

    def chain(self, step: Step) -> Iterator[Finding]:
        """Inputs that are no longer what they were when the stage read them."""
        again = f"dvc repro {step.stage}"
        for path, digest in step.inputs.items():
            maker = self.lineage.maker(path)
            is_output = maker is not None and path in maker.outputs  # not a part of what it wrote
            now = maker.outputs[path] if maker and is_output else self.disk.digest(Path(path), digest)
            if now == digest or (not (maker and is_output) and self._is_foreign(path)):
                continue
            if maker and is_output:
                what = f"{step.stage} read {short(digest)}, but {maker.stage} has since written {short(now)}"
                yield step.finding("stale chain", what, again, path)
            else:
                names = self._changed(path, digest)
                what = "changed since" if now else "gone since"
                what += f" {step.stage} read it" + (f": {names}" if names else "")
                there = set(self.disk.listing(Path(path)) or {})
                back = f"git checkout HEAD -- {path}, or " if maker is None and head_holds(path, digest, there) else ""
                yield step.finding("out of date", what, back + again, path)
        for path in step.outputs:
            yield from self._provenance(step, path)

    def _provenance(self, step: Step, path: str) -> Iterator[Finding]:
        file = Path(path) / PROVENANCE
        if self._is_foreign(path) or not file.is_file():
            return
        try:
            said = dict(read_json(file)["inputs"])
        except (DarkroomError, KeyError, TypeError, ValueError):
            what = f"names no inputs: it is not as {step.stage} writes it"
            yield step.finding("stale chain", what, self.restore(step, path), str(file))
            return
        for source, digest in said.items():
            maker = self.lineage.maker(source)
            expected = step.inputs.get(source) or (maker.outputs.get(source) if maker else None)
            if expected != digest:
                what = f"says it was made from {source} {short(digest)}, but dvc.lock has {short(expected)}"
                yield step.finding("stale chain", what, f"dvc repro -f -s {step.stage}", str(file))

    def code(self, step: Step, commit: str) -> Iterator[Finding]:
        """Code that changed after the stage ran, at `commit` where that is known."""
        for path, digest in step.code.items():
            now = self.disk.digest(Path(path), digest)
            if now != digest and not self._is_foreign(path):
                what = "changed since its stages ran" if now else "gone since its stages ran"
                if (
                    commit
                    and now
                    and Path(path).is_dir()
                    and (names := git_text_or_none("diff", "--name-only", commit, "--", path))
                ):
                    what += f": {some([name.removeprefix(f'{path}/') for name in names.splitlines()])}"
                yield step.finding("out of date", what, "dvc repro", path)

    def definition(self, step: Step) -> Iterator[Finding]:
        """What dvc.yaml and params.yaml ask for otherwise than when the stage ran."""
        spec = self.specs[step.stage]
        again = f"dvc repro {step.stage}"
        if spec.cmd != step.cmd:
            yield step.finding("out of date", f"{step.stage} ran {step.cmd!r}, now {spec.cmd!r}", again, str(PIPELINE))
        for otherwise, asked, had in (
            ("reads other things", [*spec.inputs, *spec.code], step.inputs.keys() | step.code.keys()),
            ("writes other things", spec.outputs, step.outputs.keys()),
            ("has other parameters", spec.params, {key for values in step.params.values() for key in values}),
        ):
            wanted = {str(one) for one in asked}
            if changed := wanted ^ had:
                what = f"{step.stage} {otherwise} than when it ran: {some(sorted(changed))}"
                remedy = again if wanted - had else f"dvc repro -f -s {step.stage}"  # what is taken away DVC overlooks
                yield step.finding("out of date", what, remedy, str(PIPELINE))
        for file, sections in step.params.items():
            if self._is_foreign(file):
                continue
            then, now = flat(sections), _sections(Path(file), list(sections))
            keys = list(dict.fromkeys((*then, *now)))
            pairs = [(key, now.get(key, "absent"), then.get(key, "absent")) for key in keys]
            if changes := [f"{key} is {value}, was {before}" for key, value, before in pairs if value != before]:
                yield step.finding("out of date", f"changed since {step.stage} ran: {some(changes)}", again, file)

    def restore(self, step: Step, path: str) -> str:
        """The command that brings an output back as dvc.lock has it."""
        return " ".join(self._restore_command(step, path))

    def _is_foreign(self, path: str) -> bool:
        """Whether something else than files and folders lies at a path, which is then said of it."""
        found = self.disk.scan(Path(path))
        return found is not None and bool(found.foreign)

    def _restore_command(self, step: Step, path: str) -> tuple[str, str]:
        """The command that brings an output back, and what to name to it."""
        if path in step.uncached:
            kept = md5_at_head(path) == step.outputs[path]
            return ("git checkout HEAD --", path) if kept else (self._rerun_command(step), step.stage)
        digest = step.outputs[path]
        if self.cache.lacks(digest) or self.cache.corrupt(digest):
            return ("dvc pull --force", path) if has_remote() else (self._rerun_command(step), step.stage)
        return "dvc checkout --force", path

    def _rerun_command(self, step: Step) -> str:
        """How to run a stage again: alone, or, where its inputs are not there, with what makes them."""
        there = all(self.disk.listing(Path(path)) is not None for path in step.inputs)
        return "dvc repro -f -s" if there else "dvc repro"

    def _recache_command(self, step: Step, path: str) -> str:
        """The command that has the cache hold an output; a commit, unless that would also hide other changes."""
        is_output = self.disk.digest(Path(path), step.outputs[path]) == step.outputs[path]
        if is_output and not any((*self.chain(step), *self.code(step, ""), *self.definition(step))):
            return f"dvc commit -f {step.stage}"
        return f"dvc pull --force {path}" if has_remote() else f"{self._rerun_command(step)} {step.stage}"

    def _changed(self, path: str, digest: str) -> str:
        """The files of a folder that are not as the cache's listing of `digest` has them; empty where there is none."""
        before, now = self.cache.listing(digest), self.disk.listing(Path(path)) or {}
        if before is None or "" in before or "" in now:
            return ""
        changes = [name if name in now else f"{name} (gone)" for name in before if now.get(name) != before[name]]
        return some(changes + [f"{name} (new)" for name in sorted(now.keys() - before.keys())])

    def _object(self, path: str, digest: str, broken: str) -> str:
        """What an object of the cache is."""
        names = [name for name, md5 in (self.cache.listing(digest) or {}).items() if md5 == broken and name]
        return f"{path}/{names[0]}" if names else path if broken == digest else f"of {path}"


def _sections(file: Path, keys: list[str]) -> dict[str, Any]:
    """{dotted key: value} of what stands in a params file below these keys."""
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    found: dict[str, Any] = {}
    for key in keys:
        value = values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found |= flat({key: value})
    return found
