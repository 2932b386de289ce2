"""What was made from what, as an inline SVG: a box for each stage with what it wrote, sources above it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from markupsafe import Markup

from darkroom.config.paths import REPORTS

BOX, GAP, BETWEEN = 244, 22, 46  # widths in pixels: of a box, between boxes, between rows
LINE, HEAD = 17, 24
DIGITS = 8

Lineage = Mapping[str, Mapping[str, Mapping[str, str]]]


@dataclass(frozen=True)
class _Box:
    title: str
    lines: list[tuple[str, str]]
    x: float
    y: float
    source: bool

    @property
    def height(self) -> float:
        return HEAD + LINE * len(self.lines) + 6


def lineage_graph(lineage: Lineage, here: str = "") -> Markup:
    """Stages below those that they build on, each with the first digits of what it wrote.

    Args:
        here: the stage that is drawn bolder.
    """
    makers = {path: stage for stage, step in lineage.items() for path in step["outputs"]}
    above = {
        stage: {maker for path in step["inputs"] if (maker := _maker(path, makers)) and maker != stage}
        for stage, step in lineage.items()
    }
    rows: dict[int, list[str]] = {}
    for stage in lineage:
        rows.setdefault(_depth(stage, above, ()), []).append(stage)
    sources = {
        path: digest
        for step in lineage.values()
        for path, digest in step["inputs"].items()
        if _maker(path, makers) is None
    }
    boxes: dict[str, _Box] = {}
    width = max([len(row) for row in rows.values()] or [1]) * (BOX + GAP) + GAP
    y = 4.0
    if sources:
        lines = [(path, digest[:DIGITS]) for path, digest in sources.items()]
        boxes[""] = _Box("from outside", lines, (width - BOX) / 2, y, True)
        y += boxes[""].height + BETWEEN
    for _, stages in sorted(rows.items()):
        left = (width - len(stages) * (BOX + GAP) + GAP) / 2
        for i, stage in enumerate(stages):
            boxes[stage] = _Box(stage, _products(lineage[stage]["outputs"]), left + i * (BOX + GAP), y, False)
        y += max(boxes[stage].height for stage in stages) + BETWEEN
    arrows = [_arrow(boxes[maker], boxes[stage]) for stage in lineage for maker in sorted(_direct(stage, above))]
    if sources:
        reading = [s for s in lineage if any(_maker(path, makers) is None for path in lineage[s]["inputs"])]
        arrows += [_arrow(boxes[""], boxes[stage]) for stage in reading]
    drawn = Markup("").join([*arrows, *(_box(box, box.title == here) for box in boxes.values())])
    return Markup(
        '<svg class="lineage" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="lineage">{}</svg>'
    ).format(drawn, w=f"{width:.0f}", h=f"{max(y - BETWEEN + 6, 30):.0f}")


def _maker(path: str, makers: Mapping[str, str]) -> str | None:
    """The stage that writes a path, or the folder that holds it."""
    return next(
        (makers[str(one)] for one in (PurePosixPath(path), *PurePosixPath(path).parents) if str(one) in makers), None
    )


def _depth(stage: str, above: Mapping[str, set[str]], seen: tuple[str, ...]) -> int:
    makers = [maker for maker in above[stage] if maker not in seen]
    return max([1 + _depth(maker, above, (*seen, stage)) for maker in makers], default=0)


def _direct(stage: str, above: Mapping[str, set[str]]) -> set[str]:
    """What a stage builds on, but for what stands behind another of these."""

    def behind(one: str, seen: tuple[str, ...] = ()) -> set[str]:
        return {far for near in above[one] if near not in seen for far in {near, *behind(near, (*seen, one))}}

    return {maker for maker in above[stage] if not any(maker in behind(other) for other in above[stage] - {maker})}


def _products(outputs: Mapping[str, str]) -> list[tuple[str, str]]:
    """Not reports, if there is something else."""
    kept = {path: digest for path, digest in outputs.items() if not path.startswith(f"{REPORTS}/")} or dict(outputs)
    return [(path, digest[:DIGITS]) for path, digest in kept.items()]


def _box(box: _Box, here: bool) -> Markup:
    style = "box source" if box.source else "box here" if here else "box"
    parts = [
        Markup('<rect class="{}" x="{:.0f}" y="{:.0f}" width="{}" height="{:.0f}" rx="6"/>').format(
            style, box.x, box.y, BOX, box.height
        ),
        Markup('<text class="stage" x="{:.0f}" y="{:.0f}">{}</text>').format(box.x + 10, box.y + 17, box.title),
    ]
    for i, (path, digest) in enumerate(box.lines):
        y = box.y + HEAD + LINE * i + 11
        parts.append(
            Markup(
                '<text class="path" x="{:.0f}" y="{:.0f}">{}</text><text class="digest" x="{:.0f}" y="{:.0f}" '
                'text-anchor="end">{}</text>'
            ).format(box.x + 10, y, path if len(path) <= 24 else f"…{path[-23:]}", box.x + BOX - 8, y, digest)
        )
    return Markup("").join(parts)


def _arrow(start: _Box, end: _Box) -> Markup:
    x1, y1, x2, y2 = start.x + BOX / 2, start.y + start.height, end.x + BOX / 2, end.y
    bend = min(BETWEEN * 0.9, (y2 - y1) / 2)
    path = f"M{x1:.0f},{y1:.0f} C{x1:.0f},{y1 + bend:.0f} {x2:.0f},{y2 - bend:.0f} {x2:.0f},{y2 - 5:.0f}"
    head = f"{x2 - 4:.0f},{y2 - 7:.0f} {x2 + 4:.0f},{y2 - 7:.0f} {x2:.0f},{y2:.0f}"
    return Markup('<path class="arrow" d="{}"/><polygon class="head" points="{}"/>').format(path, head)
