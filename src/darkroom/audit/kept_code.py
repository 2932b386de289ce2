"""Stages that `darkroom keep` did not run again, and code of the installed package that is not what DVC compares."""

from collections.abc import Collection, Iterator, Mapping

from darkroom.audit.findings import Finding
from darkroom.audit.lineage import Step
from darkroom.config.stage_spec import StageSpec
from darkroom.core.errors import DarkroomError
from darkroom.project.code_files import SYNC, file_of, outdated, recorded_stages
from darkroom.project.kept import Kept
from darkroom.project.kept import file_of as note_of


def kept(step: Step) -> Kept | None:
    """The note of a step that was taken over under changed code; None without one, or with one that is damaged."""
    try:
        return Kept.of(step.stage, step.code)
    except DarkroomError:
        return None


def check_kept(step: Step) -> Iterator[Finding]:
    """That a stage was not run again, with what has changed since, or that its note cannot be read."""
    again = f"dvc repro -f -s {step.stage}"
    try:
        note = Kept.of(step.stage, step.code)
    except DarkroomError as error:
        what, _, remedy = str(error).partition("; ")
        yield step.finding("lost record", what, f"git checkout HEAD -- {note_of(step.stage)}, or {remedy}")
        return
    if note is not None:
        what = f"kept since {note.since} under changed code ({note.why}), and not rerun"
        yield step.finding("not rerun", what, f"none needed; {again} makes it anew")


def check_installed(specs: Mapping[str, StageSpec], stages: Collection[str]) -> Iterator[Finding]:
    """In a project around the installed package: the stages whose code there is other than DVC was given."""
    for change in outdated([stage for stage in recorded_stages(specs) if stage in stages]):
        remedy = f"{SYNC}, then dvc repro {change.stage} or darkroom keep {change.stage}"
        yield Finding("out of date", str(file_of(change.stage)), change.why, remedy, (change.stage,))
