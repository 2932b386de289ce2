"""What is neither file nor folder, hidden from DVC, or a system's own: looked at before contents.

Every remedy takes it away first, and reads or writes nothing through it.
"""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from darkroom.audit.checks import Checks
from darkroom.audit.disk import IGNORE
from darkroom.audit.file_types import Scan
from darkroom.audit.findings import Finding, some
from darkroom.audit.lineage import Step
from darkroom.config.stage_spec import LOCK, PIPELINE
from darkroom.core.artifact import file_hash
from darkroom.tracking.repository import git_text_or_none, md5_at_head

MOST_NAMES = 20  # in one command


def check_kinds(checks: Checks) -> Iterator[Finding]:
    """What is of another kind than it should be, or hidden, or a system's own, in all that an audit looks at."""
    yield from _of_outputs(checks)
    outputs = {path for step in checks.lineage.steps.values() for path in step.outputs}
    sources: dict[str, list[str]] = {str(path): [] for path in (PIPELINE, LOCK, IGNORE)}
    for step in checks.lineage.steps.values():
        for path in (*step.inputs, *step.code, *step.params):
            if not any(str(above) in outputs for above in (Path(path), *Path(path).parents)):
                sources.setdefault(path, []).append(step.stage)
    for path, stages in sources.items():
        if found := checks.disk.scan(Path(path)):
            yield from _of_source(path, found, tuple(dict.fromkeys(stages)))


def _of_outputs(checks: Checks) -> Iterator[Finding]:
    around: dict[tuple[Path, str], list[tuple[Step, str]]] = {}  # what stands at outputs or above them, maybe several
    for step in checks.lineage.steps.values():
        for path, digest in step.outputs.items():
            inside = {}
            for unexpected, kind in checks.unexpected(path, digest).items():
                if Path(path) in unexpected.parents:
                    inside[unexpected] = kind
                else:
                    around.setdefault((unexpected, kind), []).append((step, path))
            if inside:
                what = f"not of the kind that {step.stage} wrote: {_describe(inside, Path(path))}"
                yield step.finding("foreign kind", what, f"{_away(inside, path)} && {checks.restore(step, path)}", path)
            yield from _beside(checks, step, path)
    for (unexpected, kind), whose in around.items():
        stages = tuple(dict.fromkeys(step.stage for step, _ in whose))
        names = [path for _, path in whose]
        what = f"is {kind}, and not what {', '.join(stages)} wrote" + (
            "" if names == [str(unexpected)] else f" ({some(names)})"
        )
        remedy = " && ".join(
            [_away({unexpected: kind}, str(unexpected)), *(checks.restore(step, path) for step, path in whose)]
        )
        yield Finding("foreign kind", str(unexpected), what, remedy, stages)


def _beside(checks: Checks, step: Step, path: str) -> Iterator[Finding]:
    """What lies in an output beside what DVC counts."""
    found = checks.disk.scan(Path(path))
    if found is None:
        return
    back = f"rm -rf {shlex.quote(path)} && {checks.restore(step, path)}"  # where names cannot be typed
    if found.hidden:
        what = f"{IGNORE} hides from DVC what lies there: {_describe(found.hidden, Path(path))}"
        changed = IGNORE.is_file() and md5_at_head(str(IGNORE)) not in (None, file_hash(IGNORE))
        remedy = f"git checkout HEAD -- {IGNORE}" if changed else _away(found.hidden, "") or back
        yield step.finding("hidden", what, remedy, path)
    if found.left:
        what = f"holds what a system left there, which was not counted: {_describe(found.left, Path(path))}"
        yield step.finding("system files", what, _away(found.left, "") or back, path)


def _of_source(path: str, found: Scan, stages: tuple[str, ...]) -> Iterator[Finding]:
    """Of what no stage writes, and git mostly keeps."""
    at_head = (
        bool(git_text_or_none("ls-tree", "HEAD", "--", path)) if found.foreign or any(found.left.values()) else False
    )
    back = f" && git checkout HEAD -- {shlex.quote(path)}" if at_head else ", and put it back"
    if found.foreign:
        first = next(iter(found.foreign))
        at_path = first == Path(path)
        what = f"is {found.foreign[first]}" if at_path else f"not files: {_describe(found.foreign, Path(path))}"
        remedy = f"{_away(found.foreign, path)}{back}"
        if at_path and first.is_file() and md5_at_head(path) != file_hash(first):  # a checkout would lose what it says
            quoted, beside = shlex.quote(path), shlex.quote(f"{path}.new")
            remedy = f"cp {quoted} {beside} && mv -f {beside} {quoted}"
        yield Finding("foreign kind", path, what, remedy, stages)
    if left := [file for file, counted in found.left.items() if counted]:
        what = f"holds what a system left there, which was not counted: {_describe(left, Path(path))}"
        yield Finding("system files", path, what, _away(left, "") or f"rm -rf {shlex.quote(path)}{back}", stages)


def _describe(paths: Iterable[Path], root: Path) -> str:
    """Some of these paths, relative to `root` where they lie in it, with their kinds where those are known."""
    kinds = paths if isinstance(paths, dict) else {}
    descriptions = []
    for path in paths:
        name = str(path.relative_to(root) if root in path.parents else path)
        descriptions.append(f"{name} is {kinds[path]}" if path in kinds else name)
    return some(descriptions)


def _away(paths: Iterable[Path], instead: str) -> str:
    """The command that removes these, each by its name; all of `instead` where names cannot be typed, or are too many.

    A link is removed, not what it leads to.
    """
    names = [str(path) for path in paths]
    if len(names) > MOST_NAMES or not all(name.isprintable() for name in names):
        return f"rm -rf {shlex.quote(instead)}" if instead else ""
    folders = any(path.is_dir() and not path.is_symlink() for path in paths)
    return f"rm -{'rf' if folders else 'f'} {' '.join(map(shlex.quote, names))}"
