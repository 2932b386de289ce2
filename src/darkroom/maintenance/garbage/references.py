"""What is kept: the outputs that a dvc.lock of a named commit, of the working tree, or a registered version names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from darkroom.audit.lineage import Lineage, read_lineage
from darkroom.audit.picture import locate
from darkroom.config.lock_file import LockedStage, parse_lock, read_lock
from darkroom.config.stage_spec import LOCK, stage_specs
from darkroom.core.errors import DarkroomError
from darkroom.serving.registry import MADE_AT, MODEL
from darkroom.tracking.query import RunQuery
from darkroom.tracking.repository import NoRepositoryError, git_text, git_text_or_none
from darkroom.tracking.sources import RegisteredVersion

NAMES = ("refs/heads", "refs/tags", "refs/remotes")
EXPERIMENTS, NOT_THOSE = "refs/exps", ("refs/exps/exec/", "refs/exps/stash", "refs/exps/celery", "refs/exps/temp")
Output = tuple[str, str]  # path and DVC's hash


@dataclass(frozen=True)
class References:
    """commits: {commit: its names}, beside the working tree. outputs: all that is named, path and hash.

    versions: registered ones that are kept, in words. runs: ids of those behind them. experiments: DVC's, whose outputs
    are not kept for their sake.
    """

    commits: dict[str, list[str]]
    outputs: frozenset[Output]
    versions: tuple[str, ...]
    runs: frozenset[str]
    experiments: tuple[str, ...]

    def __str__(self) -> str:
        names = [name for found in self.commits.values() for name in found]
        heads = sum(name.startswith(("refs/heads", "refs/remotes")) for name in names)
        tags = sum(name.startswith("refs/tags") for name in names)
        counted = [(heads, "branch", "branches"), (tags, "tag", "tags")]
        said = ["the working tree", *(["HEAD"] if "HEAD" in names else [])]
        said += [f"{n} {one if n == 1 else many}" for n, one, many in counted if n]
        said += [f"registered {version}" for version in self.versions]
        return f"{', '.join(said[:-1])} and {said[-1]}" if len(said) > 1 else said[0]


def references(query: RunQuery | None, experiments: bool) -> References:
    """All that is referred to.

    Args:
        query: the store of the runs; None where there is none.
        experiments: whether those of DVC count too.

    Raises:
        DarkroomError: the store or git does not answer, or a dvc.lock cannot be read: what is kept is not known then.
    """
    commits = dict(_commits(NAMES))
    tried = {commit: names for commit, names in _commits((EXPERIMENTS,)) if commit not in commits}
    if experiments:
        commits |= tried
    outputs = set(_outputs(read_lock()))
    for commit, names in commits.items():
        outputs |= set(_outputs(_lock_of(commit, names)))
    kept = [version for version in query.registered() if _counts(version)] if query else []
    runs = {version.run for version in kept if version.run}
    for version in kept:
        lineage = _behind(version, query) if query else Lineage({})
        outputs |= {pair for step in lineage.steps.values() for pair in (*step.outputs.items(), *step.inputs.items())}
        outputs.add((MADE_AT, version.content))
    said = tuple(f"{version.name} version {version.number}" for version in kept)
    others = (
        () if experiments else tuple(sorted({name.rpartition("/")[2] for names in tried.values() for name in names}))
    )
    return References(commits, frozenset(outputs), said, frozenset(runs), others)


def _counts(version: RegisteredVersion) -> bool:
    """Whether somebody chose to register it: darkroom register did, or an alias names it. Every run of a stage makes a
    version of its weights besides, which is referred to where the run is."""
    return version.name == MODEL or bool(version.aliases)


def _behind(version: RegisteredVersion, query: RunQuery) -> Lineage:
    """What a version was made from: as a commit's dvc.lock has it, else as the runs do; nothing where none knows."""
    specs = stage_specs()
    lock = read_lineage(LOCK.read_bytes() if LOCK.is_file() else None, specs)
    found = (locate(path, version.content, lock, specs, query) for path in (MADE_AT, *_paths(version)))
    return next((known[1] for known in found if known is not None), Lineage({}))


def _paths(version: RegisteredVersion) -> Iterator[str]:
    """Where a stage wrote the weights of a version: artifacts/text_encoder those of darkroom-text-encoder."""
    if version.name != MODEL:
        yield f"{Path(MADE_AT).parent}/{version.name.removeprefix(f'{MODEL}-').replace('-', '_')}"


def _commits(below: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """The commits with a name below these, and HEAD's and those of the stash; none where there is no repository.

    Raises:
        GitError: git does not answer.
    """
    try:
        listed = git_text("for-each-ref", "--format=%(objectname) %(*objectname) %(refname)", *below)
    except NoRepositoryError:
        if Path(".git").exists():  # a damaged one, or one that lies elsewhere
            raise
        return
    found: dict[str, list[str]] = {}
    if below == NAMES:
        if head := git_text_or_none("rev-parse", "--verify", "--quiet", "HEAD"):
            found[head] = ["HEAD"]
        for stashed in (git_text_or_none("log", "-g", "--format=%H", "refs/stash", "--") or "").split():
            found.setdefault(stashed, []).append("refs/stash")
    for line in listed.splitlines():
        *objects, name = line.split()
        if objects and not name.startswith(NOT_THOSE) and not name.endswith("/HEAD"):
            commit = git_text_or_none("rev-parse", "--verify", "--quiet", f"{objects[-1]}^{{commit}}")
            if commit:  # a tag may name a file
                found.setdefault(commit, []).append(name)
    yield from found.items()


def _lock_of(commit: str, names: list[str]) -> Mapping[str, LockedStage]:
    """The entries of the dvc.lock of a commit; none where it has no such file.

    Raises:
        DarkroomError: it cannot be read.
    """
    blob = git_text_or_none("rev-parse", "--verify", "--quiet", f"{commit}:./{LOCK}")
    try:
        return parse_lock(git_text("cat-file", "blob", blob)) if blob else {}
    except DarkroomError as error:
        raise DarkroomError(
            f"{', '.join(names)} (commit {commit[:8]}): {str(error).rpartition('; ')[0]}, so nobody can tell what it "
            f"needs; nothing is removed: commit a whole {LOCK} there, or delete that branch or tag"
        ) from None


def _outputs(lock: Mapping[str, LockedStage]) -> Iterator[Output]:
    """The outputs that a dvc.lock names."""
    return (pair for stage in lock.values() for pair in stage.outputs.items())
