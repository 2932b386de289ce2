"""What was made from what, as an SVG, inline or a file of its own.

A box for each stage with what it wrote, below those that it builds on; what comes from outside at the top.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from markupsafe import Markup

from darkroom.config.paths import REPORTS

BOX, LANE, GAP, BETWEEN = 244, 20, 24, 50  # pixels: widths of a box and of an arrow's lane past boxes; distances
LINE, HEAD = 17, 24
WIDEST = 680  # pixels of a file: as wide as descriptions are in MLflow's pages
DIGITS, LETTERS = 8, 24
STYLE = """\
text { fill: #22242a; font: 12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.stage { font-weight: 600; } .path { font-size: 11px; fill: #63666e; } .digest { font-size: 11px; }
.box { fill: #ffffff; stroke: #63666e; } .box.source { stroke-dasharray: 4 3; }
.box.here { stroke: #1a5fa0; stroke-width: 2.5; }
.arrow { fill: none; stroke: #63666e; stroke-width: 1.5; } .head { fill: #63666e; }
"""  # of a file, which no page gives its style
OUTSIDE = ""  # what no stage made, in place of a stage's name

Lineage = Mapping[str, Mapping[str, Mapping[str, str]]]
Node = tuple[str, str, int]  # a stage, "" and 0; or the two ends of an arrow that passes a row, and the row


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def lineage_graph(lineage: Lineage, here: str = "") -> Markup:
    """Stages below those that they build on, each with the first digits of what it wrote.

    Args:
        here: the stage that is drawn bolder.
    """
    makers = {path: stage for stage, step in lineage.items() for path in step["outputs"]}
    above = {stage: {maker_of(path, makers) for path in step["inputs"]} - {stage} for stage, step in lineage.items()}
    contents = {stage: _products(step["outputs"]) for stage, step in lineage.items()}
    outside = {p: d for step in lineage.values() for p, d in step["inputs"].items() if maker_of(p, makers) == OUTSIDE}
    if outside:
        above[OUTSIDE] = set()
        contents[OUTSIDE] = list(outside.items())
    depth = {stage: _depth(stage, above, ()) for stage in above}
    arrows = [(maker, stage) for stage in above for maker in sorted(_direct(stage, above))]
    boxes = _placed(_rows(depth, arrows), contents)
    drawn = [_arrow([boxes[node] for node in _way(maker, stage, depth)]) for maker, stage in arrows]
    drawn += [_box(boxes[stage, "", 0], stage, contents[stage], stage == here) for stage in above]
    return Markup(
        '<svg class="lineage" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="lineage">{}</svg>'
    ).format(
        Markup("").join(drawn),
        w=f"{max([box.x + box.width for box in boxes.values()] or [0]) + GAP:.0f}",
        h=f"{max([box.y + box.height for box in boxes.values()] or [0]) + 6:.0f}",
    )


def lineage_file(lineage: Lineage, here: str = "") -> str:
    """The same as an SVG file, at most WIDEST pixels wide, for programs that show pictures as large as they are."""
    head, drawn = str(lineage_graph(lineage, here)).split(">", 1)
    width, height = (int(value) for value in re.findall(r' (?:width|height)="(\d+)"', head))
    size = f'width="{min(width, WIDEST)}" height="{height * min(width, WIDEST) // max(width, 1)}"'
    head = head.replace(f'width="{width}" height="{height}"', size)
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    paper = '<rect width="100%" height="100%" fill="#fbfaf7"/>'
    return f"{head}><style>{STYLE}</style>{paper}{drawn}\n"


def maker_of(path: str, makers: Mapping[str, str]) -> str:
    """The stage that writes a path, or the folder that holds it; OUTSIDE where none does."""
    holds = map(str, (PurePosixPath(path), *PurePosixPath(path).parents))
    return next((makers[one] for one in holds if one in makers), OUTSIDE)


def _depth(stage: str, above: Mapping[str, set[str]], seen: tuple[str, ...]) -> int:
    makers = [maker for maker in above[stage] if maker in above and maker not in (*seen, stage)]
    return max([1 + _depth(maker, above, (*seen, stage)) for maker in makers], default=0)


def _direct(stage: str, above: Mapping[str, set[str]]) -> set[str]:
    """What a stage builds on, but for what stands behind another of these."""

    def behind(one: str, seen: tuple[str, ...] = ()) -> set[str]:
        makers = [maker for maker in above[one] if maker in above and maker not in seen]
        return {far for near in makers for far in {near, *behind(near, (*seen, one))}}

    makers = {maker for maker in above[stage] if maker in above}
    return {maker for maker in makers if not any(maker in behind(other) for other in makers - {maker})}


def _rows(depth: Mapping[str, int], arrows: Sequence[tuple[str, str]]) -> list[list[Node]]:
    """Stages by their depth, with a lane in each row that an arrow passes; each below what it comes from."""
    rows: list[list[Node]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for stage, row in depth.items():
        rows[row].append((stage, "", 0))
    for maker, stage in arrows:
        for row in range(depth[maker] + 1, depth[stage]):
            rows[row].append((maker, stage, row))
    positions: dict[Node, float] = {}
    for nodes in rows:
        nodes.sort(key=lambda node: (_wanted(node, depth, arrows, positions), node))
        positions |= {node: (i + 0.5) / len(nodes) for i, node in enumerate(nodes)}
    return rows


def _wanted(
    node: Node, depth: Mapping[str, int], arrows: Sequence[tuple[str, str]], positions: dict[Node, float]
) -> float:
    """Where in its row a node stands best, 0 to 1: below what it comes from."""
    ends = [node[:2]] if node[1] else [arrow for arrow in arrows if arrow[1] == node[0]]
    row = node[2] if node[1] else depth[node[0]]
    before = [(*end, row - 1) if depth[end[0]] < row - 1 else (end[0], "", 0) for end in ends]
    found = [positions[one] for one in before if one in positions]
    return sum(found) / len(found) if found else 0.5


def _placed(rows: Sequence[Sequence[Node]], contents: Mapping[str, Sequence[tuple[str, str]]]) -> dict[Node, _Box]:
    def width(node: Node) -> int:
        return LANE if node[1] else BOX

    total = max([sum(width(node) + GAP for node in nodes) for nodes in rows] or [0])
    boxes, y = dict[Node, _Box](), 4.0
    for nodes in rows:
        x = (total - sum(width(node) + GAP for node in nodes)) / 2 + GAP
        height = max([HEAD + LINE * len(contents[node[0]]) + 6 for node in nodes if not node[1]], default=0)
        for node in nodes:
            tall = height if node[1] else HEAD + LINE * len(contents[node[0]]) + 6
            boxes[node] = _Box(x, y, width(node), tall)
            x += width(node) + GAP
        y += height + BETWEEN
    return boxes


def _way(maker: str, stage: str, depth: Mapping[str, int]) -> list[Node]:
    """The nodes that an arrow goes through."""
    lanes = ((maker, stage, row) for row in range(depth[maker] + 1, depth[stage]))
    return [(maker, "", 0), *lanes, (stage, "", 0)]


def _products(outputs: Mapping[str, str]) -> list[tuple[str, str]]:
    """Not reports, if there is something else."""
    return [one for one in outputs.items() if not one[0].startswith(f"{REPORTS}/")] or list(outputs.items())


def _box(box: _Box, stage: str, lines: Sequence[tuple[str, str]], here: bool) -> Markup:
    style = "box source" if stage == OUTSIDE else "box here" if here else "box"
    pieces = [
        Markup('<rect class="{}" x="{:.0f}" y="{:.0f}" width="{}" height="{:.0f}" rx="6"/>').format(
            style, box.x, box.y, BOX, box.height
        ),
        Markup('<text class="stage" x="{:.0f}" y="{:.0f}">{}</text>').format(
            box.x + 10, box.y + 17, stage or "from outside"
        ),
    ]
    for i, (path, digest) in enumerate(lines):
        y = box.y + HEAD + LINE * i + 11
        name = path if len(path) <= LETTERS else f"…{path[1 - LETTERS :]}"
        pieces.append(
            Markup(
                '<text class="path" x="{:.0f}" y="{:.0f}">{}</text>'
                '<text class="digest" x="{:.0f}" y="{:.0f}" text-anchor="end">{}</text>'
            ).format(box.x + 10, y, name, box.x + BOX - 8, y, digest[:DIGITS])
        )
    return Markup("").join(pieces)


def _arrow(way: Sequence[_Box]) -> Markup:
    """From the lower edge of the first box past the lanes to the upper edge of the last."""
    path, (x, y) = [f"M{way[0].middle:.0f},{way[0].y + way[0].height:.0f}"], (way[0].middle, way[0].y + way[0].height)
    for box in way[1:]:
        end = box.y - (6 if box is way[-1] else 0)
        bend = (end - y) / 2
        path.append(f"C{x:.0f},{y + bend:.0f} {box.middle:.0f},{end - bend:.0f} {box.middle:.0f},{end:.0f}")
        x, y = box.middle, end
        if box is not way[-1]:
            y = box.y + box.height
            path.append(f"L{x:.0f},{y:.0f}")
    tip = way[-1].y
    head = f"{x - 4:.0f},{tip - 8:.0f} {x + 4:.0f},{tip - 8:.0f} {x:.0f},{tip:.0f}"
    return Markup('<path class="arrow" d="{}"/><polygon class="head" points="{}"/>').format(" ".join(path), head)
