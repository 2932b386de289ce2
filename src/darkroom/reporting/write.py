"""Writes reports into .darkroom/reports: STAGE.html and model.html, and in STAGE/ what they are made of."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from darkroom.core.artifact import atomic_path, remove
from darkroom.core.errors import DarkroomError
from darkroom.reporting.facts import FACTS, FOLDER, PAGE, WITH_RUN, Execution, Facts, Files, code_digest, read_facts
from darkroom.reporting.gather import as_locked, locked_params, locked_steps, of_lock, of_recorded, of_stage
from darkroom.reporting.graph import lineage_file
from darkroom.reporting.model_sections import metrics_of
from darkroom.reporting.pages import Made, model_page, render, stage_page
from darkroom.reporting.score_table import score_table
from darkroom.tracking.address import is_on, project_root
from darkroom.tracking.links import LINEAGE, SCORES
from darkroom.tracking.query import RunQuery, store_exists
from darkroom.tracking.run import Run
from darkroom.tracking.sources import RecordedRun

MODEL = "model.html"
WITH_LAST = f"{WITH_RUN}/{MODEL}"  # where the run of the last stage keeps it
LAST = "evaluate"  # the stage at whose end there is a model to report on


def report_stage(run: Run, execution: Execution, status: str, reason: str = "") -> Path:
    """Write the report of the stage that runs here, at its end, and have its run keep it; of the last stage also that
    of the model. In a throw-away copy of the project, they lie in the copy, and stay in the run.

    Raises:
        OSError: it cannot be written. DarkroomError: what it is made of cannot be read.
    """
    stage, root = run.account.stage, Path.cwd()
    facts = of_stage(run.account, run.observed, execution, status, reason)
    page = keep(facts, run.observed.files, root)
    run.file(root / FOLDER / stage / FACTS, FACTS)
    run.file(page, PAGE)
    run.text(lineage_file(facts.lineage, stage), LINEAGE)
    if stage == LAST and facts.finished:
        _keep_others(facts, root)
        run.file(report_model(root), WITH_LAST)
        if metrics := metrics_of(facts, files_of(stage, root)):
            run.text(score_table(metrics), SCORES)
    return page


def _keep_others(last: Facts, root: Path) -> None:
    """Keep what dvc.lock says of the stages behind the last one whose own report is not there, as after dvc pull."""
    homes = {project_root(), root}
    for stage in set(last.lineage) & set(locked_steps()) - {last.stage}:
        if not any((home / FOLDER / stage / FACTS).is_file() for home in homes):
            keep(of_lock(stage), {}, root)


def keep(facts: Facts, files: Mapping[str, bytes], root: Path) -> Path:
    """Keep facts and the files with them in a project's folder, in place of those of an earlier run, and write the page
    of them."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    with atomic_path(folder / facts.stage) as beside:
        beside.mkdir()
        for name, content in files.items():
            if is_shown(name):
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                (beside / name).write_bytes(content)
        facts.save(beside)
    page = page_of(facts.stage, root)
    write_page(page, render(stage_page(facts, files_of(facts.stage, root))))
    return page


def is_shown(name: str) -> bool:
    """Whether a report shows a file that a run keeps, or something of it."""
    path = PurePosixPath(name)
    return path.suffix == ".png" or (path.suffix == ".json" and path.parent.name == WITH_RUN and name != FACTS)


def page_of(stage: str, root: Path) -> Path:
    return root / FOLDER / f"{stage}.html"


def files_of(stage: str, root: Path) -> Files:
    """What was kept of the last run of a stage, and its outputs."""
    return Files((root / FOLDER / stage, root))


def write_page(page: Path, text: str) -> None:
    with atomic_path(page) as beside:
        beside.write_text(text, encoding="utf-8")


def report_model(root: Path) -> Path:
    """Write the report of the project's model, of what is kept of its stages.

    Raises:
        DarkroomError: nothing is, or it cannot be read.
    """
    made = kept_of_model(root)
    if not made:
        raise DarkroomError("nothing to report on: no stage has run here; dvc repro")
    page = root / FOLDER / MODEL
    write_page(page, render(model_page(made)))
    return page


def kept_of_model(root: Path) -> list[Made]:
    """What is kept of the stages, each after those that it builds on: of those runs alone that made what the last
    stage was made from."""
    found: dict[str, Made] = {}
    for home in dict.fromkeys((project_root(), root)):  # a copy of the project has what ran in it, and no more
        for name in sorted(file.parents[1].name for file in (home / FOLDER).glob(f"*/{FACTS}")):
            if (facts := read_facts(name, home)) is not None:
                found[name] = facts, files_of(name, home)
    if LAST in found:
        lineage = found[LAST][0].lineage
        found = {name: one for name, one in found.items() if one[0].outputs == lineage.get(name, {}).get("outputs")}
    return sorted(found.values(), key=lambda one: (len(one[0].lineage), one[0].stage))


def report_project() -> Path:
    """Write the reports of all stages and of the model anew: of the runs that made what dvc.lock has, where a store
    knows them, else of what was kept when the stages ran, else of what is there.

    Raises:
        DarkroomError: there is nothing.
    """
    root = project_root()
    query = RunQuery() if is_on() and store_exists() else None
    steps = locked_steps()
    for stage, step in steps.items():
        run = _maker(stage, step["inputs"], step["outputs"], query) if query else None
        if run is not None and query is not None:
            facts, files = of_recorded(run, query)
            facts = replace(as_locked(facts, locked_params(stage), steps), code=code_digest())
            keep(facts, {name: content for name in _names(files) if (content := files.read(name)) is not None}, root)
            continue
        kept = _read_or_none(stage, root)
        if kept is not None and kept.finished and kept.outputs == step["outputs"]:
            kept = replace(as_locked(kept, locked_params(stage), steps), code=code_digest())
            kept.save(root / FOLDER / stage)
            write_page(page_of(stage, root), render(stage_page(kept, files_of(stage, root))))
        else:
            keep(of_lock(stage), {}, root)
    return report_model(root)


def _maker(stage: str, inputs: Mapping[str, str], outputs: Mapping[str, str], query: RunQuery) -> RecordedRun | None:
    """The latest finished run that wrote these contents from those."""
    runs = [run for run in query.runs(stage, outputs) if run.good and run.outputs == outputs and run.inputs == inputs]
    runs.sort(key=lambda run: not run.recorded)
    return next(iter([run for run in runs if not run.afterwards] or runs), None)


def _names(files: Files) -> list[str]:
    """What a run kept besides its outputs, of the kinds that a report shows."""
    rows = [name for names in files.rows_of_pictures().values() for name in names]
    return [name for name in (*files.at_top(), *files.below(WITH_RUN, ""), *rows) if is_shown(name)]


def _read_or_none(stage: str, root: Path) -> Facts | None:
    """What is kept of a stage; nothing, and no longer there, where it cannot be read."""
    try:
        return read_facts(stage, root)
    except DarkroomError:
        remove(root / FOLDER / stage)
        return None


def address(page: Path) -> str:
    """What a browser takes to open a page."""
    return page.absolute().as_uri()
