"""An audit as one HTML page that loads nothing: the verdict, what does not hold and why, and the lineage, drawn."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from darkroom.audit.auditor import Audit
from darkroom.audit.evidence import MatchedRuns, day
from darkroom.audit.findings import Finding, short
from darkroom.audit.lineage import Step
from darkroom.audit.report import BAD, GOOD, REMARK, mark, picture_lines, verdict
from darkroom.core.artifact import atomic_path
from darkroom.core.progress import readable_size
from darkroom.core.text import printable_text
from darkroom.reporting.blocks import Block, Cell, Drawings, Heading, Page, Section, Statement, Table, Text
from darkroom.reporting.graph import lineage_graph
from darkroom.reporting.pages import render

WHOLE, BROKEN = "WHOLE", "BROKEN"  # the status of a page


def write_page(audit: Audit, file: Path) -> None:
    """Write the page. Raises OSError: it cannot be written."""
    with atomic_path(file) as beside:
        beside.write_text(render(audit_page(audit)), encoding="utf-8")


def audit_page(audit: Audit) -> Page:
    """The page of an audit, to be rendered."""
    breaks = [finding for finding in audit.findings if finding.breaks]
    remarks = [finding for finding in audit.findings if not finding.breaks]
    sections = [
        ("broken", "What does not hold", list(_findings(breaks))),
        ("remarks", "Remarks", list(_findings(remarks))),
        ("picture", "The picture", _lines(picture_lines(audit))),
        ("lineage", "Lineage", list(_lineage(audit))),
        ("parameters", "Parameters", list(_parameters(audit))),
        ("repaired", "Repaired", _lines(audit.repaired)),
        ("unvouched", "Not vouched for", _lines(audit.unvouched)),
    ]
    filled = [Section(name, title, blocks) for name, title, blocks in sections if blocks]
    statement = Statement(verdict(audit), "broken" if breaks else "remarks" if remarks else "")
    about = f"dvc.lock, the disk, DVC's cache and MLflow's runs, compared on {datetime.now():%F at %H:%M}."
    title = printable_text(f"Audit of {audit.target}")
    return Page(title, about, BROKEN if breaks else WHOLE, "", [statement], filled, kind="audit")


def _lines(texts: Sequence[str]) -> list[Block]:
    return [Text(printable_text(text.strip())) for text in texts]


def _findings(findings: Sequence[Finding]) -> Iterator[Block]:
    rows = list[list[Cell | str]]()
    for one in findings:
        where, what, remedy = map(printable_text, (one.where, one.what, one.remedy))
        rows.append([one.kind, Cell(where, "code"), what, Cell(remedy, "code")])
    if rows:
        yield Table(["kind", "where", "what", "what puts it right"], rows)


def _lineage(audit: Audit) -> Iterator[Block]:
    steps = audit.lineage.steps.values()
    drawn = {
        f"{mark(audit, step)} {step.stage}": {"inputs": dict(step.inputs), "outputs": dict(step.outputs)}
        for step in steps
    }
    if drawn:
        legend = f"{GOOD} nothing is said of it, {REMARK} a remark is, {BAD} something there does not hold"
        yield Drawings([(lineage_graph(drawn), legend)], wide=True)
        head = ["stage", "wrote", "content", "size", "run", "began", "commit", "registered as"]
        yield Table(head, [row for step in steps for row in _rows(audit, step)])


def _rows(audit: Audit, step: Step) -> Iterator[list[Cell | str]]:
    """A row for each output; the run stands beside the first."""
    maker = audit.evidence.get(step.stage, MatchedRuns()).maker
    run = ["none", "", ""]
    if maker:
        run = [short(maker.id), day(maker.began), short(maker.commit) if maker.commit else "none"]
    for i, (path, digest) in enumerate(step.outputs.items()):
        stage, run_id, began, commit = [step.stage, *run] if i == 0 else [""] * 4
        size = readable_size(step.sizes[path]) if path in step.sizes else ""
        versions = ", ".join(audit.versions.get(digest, []))
        codes = [Cell(stage, "code"), Cell(printable_text(path), "code"), Cell(short(digest), "code")]
        yield [
            *codes,
            Cell(size, "number"),
            Cell(run_id, "code"),
            Cell(began, "number"),
            Cell(commit, "code"),
            versions,
        ]


def _parameters(audit: Audit) -> Iterator[Block]:
    for step in audit.lineage.steps.values():
        if values := step.flat_params:
            rows = [[Cell(printable_text(k), "code"), Cell(printable_text(str(v)))] for k, v in values.items()]
            yield Heading(step.stage)
            yield Table(["key", "value"], rows)
