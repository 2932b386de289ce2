"""Reports derived again, from dvc.lock, the disk and the runs, but for what depends on the clock; and compared."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from darkroom.audit.checks import Checks
from darkroom.audit.evidence import MatchedRuns
from darkroom.audit.findings import Finding, some
from darkroom.audit.lineage import Step
from darkroom.core.artifact import file_hash
from darkroom.core.errors import DarkroomError
from darkroom.reporting.facts import FACTS, FOLDER, PAGE, Facts, code_digest, read_facts
from darkroom.reporting.gather import Steps, as_locked
from darkroom.reporting.pages import model_page, render, stage_page, timeless
from darkroom.reporting.write import LAST, MODEL, WITH_LAST, files_of, kept_of_model, page_of
from darkroom.tracking.query import RunQuery

AGAIN = "darkroom report"
LONGEST = 2**28  # bytes of a page that is read


def check_reports(checks: Checks, evidence: Mapping[str, MatchedRuns], query: RunQuery | None) -> Iterator[Finding]:
    """What is wrong with the reports that lie in the project; that there is none is no fault, for git keeps none."""
    root, sound = Path.cwd(), True
    steps: Steps = {
        name: {"inputs": dict(step.inputs), "outputs": dict(step.outputs)}
        for name, step in checks.lineage.steps.items()
    }
    for step in checks.lineage.steps.values():
        if not page_of(step.stage, root).is_file() or not _is_there(step, checks):
            continue
        files = _recorded(evidence.get(step.stage), query)
        found = list(_of_stage(step, steps, files, root))
        sound &= not found
        yield from found
    model = root / FOLDER / MODEL
    if sound and LAST in steps and model.is_file():
        yield from _of_model(checks.lineage.steps[LAST], _recorded(evidence.get(LAST), query), model, root)


def _of_stage(step: Step, steps: Steps, recorded: Mapping[str, str], root: Path) -> Iterator[Finding]:
    """recorded: {name: md5} of the files that its run keeps, as its record has them."""
    page, folder = page_of(step.stage, root), root / FOLDER / step.stage
    where = str(page.relative_to(root))
    if recorded.get(PAGE) == file_hash(page) and recorded.get(FACTS) == _hash(folder / FACTS):
        return
    try:
        facts = read_facts(step.stage, root)
    except DarkroomError as error:
        yield step.finding("changed report", str(error).partition("; ")[0], AGAIN, where)
        return
    if facts is None:
        yield step.finding("changed report", "what it was made of is gone", AGAIN, where)
        return
    if not facts.finished or facts.outputs != dict(step.outputs) or facts.inputs != dict(step.inputs):
        yield step.finding("older report", "is of another run than the one that dvc.lock has", AGAIN, where)
        return
    if facts.code != code_digest():
        yield step.finding("older report", "was written by other code than this", AGAIN, where)
        return
    kept = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    # The facts are written anew by `darkroom report` where the code was another; they are compared with dvc.lock.
    others = {name: file_hash(file) for name, file in kept.items() if name != FACTS and name in recorded}
    if forged := sorted(name for name, md5 in others.items() if recorded[name] != md5):
        yield step.finding("changed report", f"not the files that its run kept: {some(forged)}", AGAIN, where)
        return
    if not _is_same(page, facts, step, steps, root):
        what = f"not what {step.stage}, its parameters and its outputs give, times left aside"
        yield step.finding("changed report", what, AGAIN, where)


def _is_same(page: Path, facts: Facts, step: Step, steps: Steps, root: Path) -> bool:
    derived = render(stage_page(as_locked(facts, step.flat_params, steps), files_of(step.stage, root)))
    return _read(page) == timeless(derived)


def _of_model(step: Step, recorded: Mapping[str, str], page: Path, root: Path) -> Iterator[Finding]:
    where = str(page.relative_to(root))
    if recorded.get(WITH_LAST) == file_hash(page):
        return
    try:
        made = kept_of_model(root)
        derived = timeless(render(model_page(made)))
    except (DarkroomError, IndexError):
        made, derived = [], ""
    if _read(page) == derived:
        return
    if any(facts.code != code_digest() for facts, _ in made):
        yield step.finding("older report", "was written by other code than this", AGAIN, where)
    else:
        yield step.finding("changed report", "not what the reports of the stages give", AGAIN, where)


def _read(page: Path) -> str | None:
    """A page without times; None where it is no text, or too long to be one."""
    try:
        return timeless(page.read_text(encoding="utf-8")) if page.stat().st_size <= LONGEST else None
    except (OSError, UnicodeDecodeError):
        return None


def _is_there(step: Step, checks: Checks) -> bool:
    """Whether the outputs are as dvc.lock has them; of others it is said elsewhere, and nothing can be derived."""
    return all(checks.disk.digest(Path(path), digest) == digest for path, digest in step.outputs.items())


def _recorded(evidence: MatchedRuns | None, query: RunQuery | None) -> Mapping[str, str]:
    if evidence is None or evidence.maker is None or query is None:
        return {}
    record = query.records.latest.get(("run", evidence.maker.id))
    return (record.files or {}) if record is not None else {}


def _hash(file: Path) -> str:
    return file_hash(file) if file.is_file() else ""
