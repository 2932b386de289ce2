"""An audit as people read it, a tree and a list of findings, and as one JSON object."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from darkroom.audit import adapters
from darkroom.audit.auditor import Audit
from darkroom.audit.evidence import MatchedRuns, day
from darkroom.audit.findings import Finding, short
from darkroom.audit.lineage import Lineage, Step
from darkroom.config.paths import REPORTS
from darkroom.core.progress import readable_size
from darkroom.core.text import plural, printable_text
from darkroom.data.manifest import data_root

WIDTH = 120
PARAM_LINES, PARAM_LENGTH = 2, 40
GOOD, BAD, REMARK = "✓", "✗", "!"


def text(audit: Audit) -> str:
    """The tree from the last product to the source, what is known of each step, the findings, and the verdict.

    Much of it was written by others: names of files, records of pictures, what a store holds. Each line is made
    printable here, as one line.
    """
    sections = [
        picture_lines(audit),
        _tree(audit),
        _profile(audit),
        [line for step in reversed(list(audit.lineage.steps.values())) for line in _about(audit, step)],
        [_line(finding) for finding in audit.findings],
        [f"repaired: {what}" for what in audit.repaired],
        [f"not vouched for: {what}" for what in audit.unvouched],
        [verdict(audit)],
    ]
    return "\n\n".join("\n".join(map(printable_text, lines)) for lines in sections if lines)


def as_json(audit: Audit) -> dict[str, Any]:
    """The same, with whole hashes and all parameters."""
    picture = audit.picture
    return {
        "target": audit.target,
        "whole": audit.intact,
        "picture": picture
        and {
            "path": str(picture.picture.path),
            "found": picture.found,
            "record": dict(picture.picture.values),
            "adapters": [adapters.as_json(adapter) for adapter in picture.adapters],
        },
        "steps": [_step_as_json(audit, step) for step in audit.lineage.steps.values()],
        "findings": [asdict(finding) | {"breaks": finding.breaks} for finding in audit.findings],
        "repaired": audit.repaired,
        "not_vouched_for": audit.unvouched,
    }


def _step_as_json(audit: Audit, step: Step) -> dict[str, Any]:
    maker = audit.evidence.get(step.stage, MatchedRuns()).maker
    return {
        "stage": step.stage,
        "cmd": step.cmd,
        "builds_on": [maker.stage for maker in audit.lineage.makers(step)],
        "inputs": dict(step.inputs),
        "code": dict(step.code),
        "params": step.flat_params,
        "outputs": dict(step.outputs),
        "sizes": dict(step.sizes),
        "registered": {digest: audit.versions[digest] for digest in step.outputs.values() if digest in audit.versions},
        "run": maker
        and {
            "id": maker.id,
            "link": maker.link,
            "began": maker.began,
            "ended": maker.ended,
            "commit": maker.commit,
            "dirty": maker.dirty,
            "profile": maker.profile,
            "recorded_by_audit": maker.afterwards,
        },
    }


def picture_lines(audit: Audit) -> list[str]:
    """What a picture says of itself; nothing where none was asked about."""
    if audit.picture is None:
        return []
    recorded = audit.picture.picture
    lines = [str(recorded.path)]
    if values := recorded.values:
        index, prompts, seeds = values.get("index"), values.get("prompts", []), values.get("seeds", [])
        drawn = range(len(prompts)) if index is None else [index]
        lines += [f"  drawn     {prompts[i]!r}, seed {seeds[i]}" for i in list(drawn)[:1]]
        if len(drawn) > 1:
            lines[-1] += f", and {len(drawn) - 1} more in one grid"
        sampling = _mapping(values.get("sampling"))
        sampler = _mapping(sampling.get("sampler")).get("kind")
        steps = sampling.get("num_inference_steps")
        lines[-1] += f"; {plural(steps, 'step') if isinstance(steps, int) else 'steps'} of {sampler}"
        lines[-1] += f", guidance {sampling.get('guidance_scale')}"
    if recorded.model:
        lines.append(f"  pipeline  {recorded.model}" + (f", {audit.picture.found}" if audit.picture.found else ""))
    lines += [line for adapter in audit.picture.adapters for line in adapters.lines(adapter)]
    if audit.picture.found:
        lines.append(f"  pixels    not compared: darkroom regenerate {recorded.path} draws it again and compares")
    return lines


def _tree(audit: Audit) -> list[str]:
    rows = [tuple(map(printable_text, row)) for row in _rows(audit)]
    if not rows:
        return []
    rows.insert(0, ("", "lineage", "content", "size", "stage", "run", "began", "commit"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]


def _rows(audit: Audit) -> Iterator[tuple[str, ...]]:
    seen: set[str] = set()
    for root in reversed(audit.lineage.roots()):
        yield from _branch(audit, root, "", "", seen)


def _branch(audit: Audit, step: Step, first: str, rest: str, seen: set[str]) -> Iterator[tuple[str, ...]]:
    """Rows for a step and all behind it: mark, name in the tree, hash, size, stage, run, time, commit."""
    products = _products(step)
    if step.stage in seen:
        yield ("", f"{first}{', '.join(products)}", "(above)", "", "", "", "", "")
        return
    seen.add(step.stage)
    maker = audit.evidence.get(step.stage, MatchedRuns()).maker
    commit = maker and (short(maker.commit) + "+" * maker.dirty if maker.commit else "no commit")
    run = (short(maker.id), day(maker.began), commit or "") if maker else ("no run" if audit.evidence else "", "", "")
    children = _direct(audit.lineage, step)
    for i, path in enumerate(products):
        size = readable_size(step.sizes[path]) if path in step.sizes else ""
        if i == 0:
            yield (mark(audit, step), first + path, short(step.outputs[path]), size, step.stage, *run)
        else:
            yield ("", rest + path, short(step.outputs[path]), size, "", "", "", "")
    sources = list(_sources(audit, step))
    for i, child in enumerate(children):
        last = i == len(children) - 1 and not sources
        yield from _branch(audit, child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "), seen)
    for i, (label, digest) in enumerate(sources):
        yield ("", rest + ("└─ " if i == len(sources) - 1 else "├─ ") + label, digest, "", "source", "", "", "")


def _products(step: Step) -> list[str]:
    """The outputs that matter to others: not reports, if there is something else."""
    return [path for path in step.outputs if not Path(path).is_relative_to(REPORTS)] or list(step.outputs)


def _direct(lineage: Lineage, step: Step) -> list[Step]:
    """The steps it builds on, but for those that stand behind another of them; the longest branch first."""
    makers = lineage.makers(step)
    behind = {m.stage: set(lineage.behind(m.stage).steps) for m in makers}
    direct = [m for m in makers if not any(m.stage in behind[other.stage] for other in makers if other is not m)]
    return sorted(direct, key=lambda m: -len(behind[m.stage]))


def _sources(audit: Audit, step: Step) -> Iterator[tuple[str, str]]:
    """What a step reads that no step makes."""
    for path, digest in step.inputs.items():
        if audit.lineage.maker(path) is None:
            yield path, short(digest)
    params = step.flat_params
    if kind := params.get(f"{step.stage}.source.kind"):
        if params.get(f"{step.stage}.source.manifest"):
            yield f"{data_root() / str(params.get(f'{step.stage}.source.root', '.'))} ({kind})", ""
        else:
            yield f"{kind}, made by the stage itself", ""


def mark(audit: Audit, step: Step) -> str:
    """GOOD, REMARK or BAD: what is said of a step."""
    mine = [finding for finding in audit.findings if step.stage in finding.stages]
    return BAD if any(finding.breaks for finding in mine) else REMARK if mine else GOOD


def _profile(audit: Audit) -> list[str]:
    profiles = _profiles(audit)
    if len(profiles) != 1:
        return []
    return textwrap.wrap(f"all on {profiles.pop()}", WIDTH, subsequent_indent=" " * 7)


def _profiles(audit: Audit) -> set[str]:
    return {
        _profile_text(evidence) for evidence in audit.evidence.values() if evidence.maker and evidence.maker.profile
    }


def _profile_text(evidence: MatchedRuns) -> str:
    profile = evidence.maker.profile if evidence.maker else {}
    return ", ".join(f"{key.removeprefix('version.').replace('_', ' ')} {value}" for key, value in profile.items())


def _about(audit: Audit, step: Step) -> list[str]:
    evidence = audit.evidence.get(step.stage, MatchedRuns())
    took = ""
    if evidence.maker and evidence.maker.ended and not evidence.maker.afterwards:
        minutes, seconds = divmod(round((evidence.maker.ended - evidence.maker.began) / 1000), 60)
        took = f" in {minutes} min {seconds} s" if minutes else f" in {seconds} s"
    others = [path for path in step.outputs if path not in _products(step)]
    lines = [f"{step.stage}{took}" + (f"; also wrote {plural(len(others), 'report')}" if others else "")]
    lines += _params(step)
    if len(_profiles(audit)) > 1 and evidence.maker:
        lines += textwrap.wrap(_profile_text(evidence), WIDTH, initial_indent="  on      ", subsequent_indent=" " * 10)
    registered = [name for digest in step.outputs.values() for name in audit.versions.get(digest, [])]
    if registered:
        lines.append(f"  models  {', '.join(registered)}")
    if evidence.maker:
        lines.append(f"  run     {evidence.maker.link}")
    return lines


def _params(step: Step) -> list[str]:
    """The stage's own parameters, as many as fit into a few lines."""
    chosen = {
        key.removeprefix(f"{step.stage}."): value
        for key, value in step.flat_params.items()
        if value is not None and key.startswith(f"{step.stage}.")
    }
    words = [word for key, value in chosen.items() if len(word := f"{key}={value}".replace(" ", "")) <= PARAM_LENGTH]
    shape: dict[str, Any] = {"initial_indent": "  params  ", "subsequent_indent": " " * 10, "break_on_hyphens": False}
    for n in range(len(words), 0, -1):
        more = f", and {len(chosen) - n} more (--json has all)" if n < len(chosen) else ""
        lines = textwrap.wrap(", ".join(words[:n]) + more, WIDTH, **shape)
        if len(lines) <= PARAM_LINES:
            return lines
    return []


def _line(finding: Finding) -> str:
    return f"{BAD if finding.breaks else REMARK} {finding.kind}: {finding.where}: {finding.what}; {finding.remedy}"


def verdict(audit: Audit) -> str:
    """Whether the chain holds, in a sentence."""
    breaks = sum(finding.breaks for finding in audit.findings)
    remarks = len(audit.findings) - breaks
    noted = f"; {plural(remarks, 'remark')}" if remarks else ""
    if breaks:
        return f"The chain is broken: {breaks} {'finding breaks' if breaks == 1 else 'findings break'} it{noted}."
    steps = audit.lineage.steps.values()
    outputs = sum(len(step.outputs) for step in steps)
    runs = sum(evidence.maker is not None for evidence in audit.evidence.values())
    counts = ", ".join((plural(len(steps), "stage"), plural(outputs, "output"), plural(runs, "run")))
    return f"The chain is whole: {counts}{noted}."


def _mapping(value: Any) -> Mapping[str, Any]:
    """A part of a record, which may hold anything."""
    return value if isinstance(value, dict) else {}
