"""Inline SVG: curves, intervals beside what they are read against, and bars. Every text is escaped."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 28, 38
LEGEND = 16  # height of a line of the legend
DRAWN, HOVERED = 400, 60  # points of a curve that are drawn, and that say their values under a pointer
COLOURS = 8
FALLS = 20  # times: a value that falls so far gets a logarithmic axis
STRIP, STRIP_HEIGHT, STRIP_MARGIN = 220, 22, 8

Points = Sequence[tuple[float, float]]


def number(value: float) -> str:
    """Four significant digits, without an exponent where that is short."""
    text = f"{value:.4g}"
    if "e" in text and 1e-5 < abs(value) < 1e7:
        return f"{value:.10f}".rstrip("0").rstrip(".") if abs(value) < 1 else f"{value:,.0f}"
    return text


def percent(fraction: float) -> str:
    """Such as "93.8 %"."""
    return f"{100 * fraction:.1f} %"


def counted(n: int, noun: str) -> str:
    """How many of what: "1 step", "2,000 steps"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def thinned(points: Points, most: int) -> Points:
    """At most so many of the points, the last among them."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from low to high."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class _Axis:
    """One direction: values from low to high, drawn from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / ((high - low) or 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.log:
            return ticks(self.low, self.high)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        few = len(powers) < 4
        found = [m * 10.0**p for p in powers for m in ((1, 2, 5) if few else (1,))]
        return [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]


def curves(
    title: str,
    lines: Mapping[str, Points],
    levels: Mapping[str, float] | None = None,
    x_label: str = "step",
    may_be_logarithmic: bool = True,
) -> Markup:
    """Curves over steps; each point says its value under a pointer.

    Args:
        levels: what to read them against, such as chance: dotted lines across.
        may_be_logarithmic: whether values that fall far get such an axis.
    """
    lines = {label: [p for p in points if math.isfinite(p[1])] for label, points in lines.items()}
    lines = {label: points for label, points in lines.items() if points}
    levels = {label: value for label, value in (levels or {}).items() if math.isfinite(value)}
    if not lines:
        return Markup("")
    every = [y for points in lines.values() for _, y in points] + [*levels.values()]
    low, high = min(every), max(every)
    log = may_be_logarithmic and 0 < low < high / FALLS and all(p[-1][1] < p[0][1] for p in lines.values())
    margin = 0.0 if log else 0.06 * ((high - low) or abs(high) or 1.0)
    steps = [x for points in lines.values() for x, _ in points]
    # One point has no extent.
    first, last = (min(steps), max(steps)) if max(steps) > min(steps) else (min(steps) - 1, max(steps) + 1)
    legend = LEGEND * (len(lines) + len(levels)) if len(lines) + len(levels) > 1 else 0
    height = HEIGHT + legend
    x = _Axis(first, last, LEFT, WIDTH - RIGHT)
    y = _Axis(low - margin, high + margin, HEIGHT - BOTTOM, TOP, log)
    drawn = [_frame(x, y, x_label)]
    for i, (label, level) in enumerate(levels.items()):
        drawn.append(
            Markup('<line class="level" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"><title>{}</title></line>').format(
                LEFT, WIDTH - RIGHT, f"{label}: {number(level)}", y=y(level)
            )
        )
        drawn.append(_legend(len(lines) + i, "level", f"{label}: {number(level)}"))
    for i, (label, points) in enumerate(lines.items()):
        drawn.append(_curve(points, x, y, i, label, x_label))
        if legend:
            drawn.append(_legend(i, f"line c{i % COLOURS}", f"{label}: {number(points[-1][1])} at the end"))
    head = Markup('<text class="title" x="{}" y="16">{}</text>').format(LEFT, title)
    return _svg(WIDTH, height, title, Markup("").join([head, *drawn]))


def _frame(x: _Axis, y: _Axis, x_label: str) -> Markup:
    pieces = []
    for value in y.ticks():
        pieces.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
                '<text class="tick" x="{}" y="{low:.1f}" text-anchor="end">{}</text>'
            ).format(LEFT, WIDTH - RIGHT, LEFT - 6, number(value), y=y(value), low=y(value) + 4)
        )
    for value in x.ticks():
        pieces.append(
            Markup(
                '<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}"/>'
                '<text class="tick" x="{x:.1f}" y="{}" text-anchor="middle">{}</text>'
            ).format(TOP, HEIGHT - BOTTOM, HEIGHT - BOTTOM + 15, f"{value:g}", x=x(value))
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    label = '<text class="tick" x="{:.0f}" y="{}" text-anchor="middle">{}</text>'
    return Markup("").join([*pieces, Markup(label).format(middle, HEIGHT - 6, x_label)])


def _curve(points: Points, x: _Axis, y: _Axis, i: int, label: str, x_label: str) -> Markup:
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in thinned(points, DRAWN))
    colour = f"c{i % COLOURS}"
    line = Markup('<polyline class="line {}" points="{}"/>').format(colour, path)
    visible = " visible" if len(points) <= 12 else ""
    dot = Markup('<circle class="dot {}{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>')
    dots = [
        dot.format(colour, visible, x(a), y(b), f"{label}, {x_label} {a:g}: {number(b)}")
        for a, b in thinned(points, HOVERED)
    ]
    return Markup("").join([line, *dots])


def _legend(row: int, style: str, text: str) -> Markup:
    y = HEIGHT + 4 + row * LEGEND
    return Markup(
        '<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick" x="{}" y="{}">{}</text>'
    ).format(style, LEFT, LEFT + 22, y, y, LEFT + 28, y + 4, text)


def strip(value: float, low: float, high: float, against: Mapping[str, float], fraction: bool = False) -> Markup:
    """A value with its interval on a line, and marks at what it is to be read against; of a share, from 0 to 1.

    Nothing where there is no such scale: the interval alone would fill the line, however narrow it is.
    """
    if not against and not fraction:
        return Markup("")
    every = [value, low, high, *against.values(), *((0.0, 1.0) if fraction else ())]
    if not all(map(math.isfinite, every)):
        return Markup("")
    x = _Axis(min(every), max(every), STRIP_MARGIN, STRIP - STRIP_MARGIN)
    middle = STRIP_HEIGHT / 2
    pieces = [Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(0, STRIP, y=middle)]
    for name, at in against.items():
        pieces.append(
            Markup('<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{}"><title>{}</title></line>').format(
                STRIP_HEIGHT - 2, f"{name}: {number(at)}", x=x(at)
            )
        )
    pieces.append(
        Markup(
            '<line class="interval c0" x1="{:.1f}" x2="{:.1f}" y1="{y}" y2="{y}"/>'
            '<circle class="dot c0 visible" cx="{:.1f}" cy="{y}" r="4"><title>{}</title></circle>'
        ).format(x(low), x(high), x(value), f"{number(value)} [{number(low)}, {number(high)}]", y=middle)
    )
    return _svg(STRIP, STRIP_HEIGHT, "value and interval", Markup("").join(pieces))


def bar(fraction: float) -> Markup:
    """A bar of a share of the width."""
    length = STRIP * min(max(fraction, 0.0), 1.0)
    drawn = Markup('<rect class="bar" x="0" y="4" width="{:.1f}" height="{}" rx="2"/>')
    return _svg(STRIP, STRIP_HEIGHT, f"{fraction:.0%}", drawn.format(max(length, 1.0), STRIP_HEIGHT - 8))


def _svg(width: float, height: float, title: str, content: Markup) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">{}</svg>').format(
        width, height, width, height, title, content
    )
