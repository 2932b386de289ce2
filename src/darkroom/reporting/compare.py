"""A page that compares runs: parameters that differ, curves on one chart, figures and sheets side by side."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from string import ascii_uppercase

from darkroom.config.paths import REPORTS
from darkroom.config.recipes import ABSENT
from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.evaluation.report import beside, estimates
from darkroom.reporting import model_sections as model
from darkroom.reporting import stage_sections as stage
from darkroom.reporting.blocks import (
    Block,
    Cell,
    Drawings,
    Heading,
    Page,
    Picture,
    Pictures,
    Section,
    Statement,
    Table,
    Text,
    picture,
)
from darkroom.reporting.charts import Points, counted, curves, number, strip
from darkroom.reporting.facts import FINISHED
from darkroom.reporting.gather import of_recorded
from darkroom.reporting.pages import Made
from darkroom.tracking.query import RunQuery
from darkroom.tracking.sources import RecordedRun

DIGITS = 8  # of a hash
CHARTS, MOST_FIGURES = 24, 400  # at most
Labelled = Sequence[tuple[str, Made]]  # a letter for each run, which the first table explains
ENDED = {"FAILED": "failed", "KILLED": "was interrupted", "RUNNING": "is still running"}


def find_runs(names: Sequence[str], query: RunQuery) -> list[RecordedRun]:
    """The runs that names mean: ids, their first digits, or stages, of which the newest run is meant.

    Raises:
        DarkroomError: there is no such run, or there are several.
    """
    found = []
    for name in names:
        runs = query.called(name)
        if not runs:
            raise DarkroomError(
                f"{printable(name)}: no such run in this store; give the id that a run's page shows (darkroom ui), its "
                "first digits, or a stage"
            )
        if len(runs) > 1:
            ids = ", ".join(run.id[: len(name) + 4] for run in runs[:4])
            raise DarkroomError(f"{printable(name)}: {len(runs)} runs begin so ({ids}, …); give more digits")
        found.append(runs[0])
    return found


def comparison(runs: Sequence[RecordedRun], query: RunQuery) -> Page:
    """The page of several runs.

    Raises:
        DarkroomError: the store does not say what they are.
    """
    made = [(_letter(i), of_recorded(run, query)) for i, run in enumerate(runs)]
    sections = [
        Section("runs", "Runs", [_runs(made, runs)]),
        *_section("parameters", "Parameters that differ", _parameters(made)),
        *_section("figures", "Figures", _figures(made)),
        *_section("curves", "Curves", _curves(made)),
        *_section("sheets", "Pictures side by side", _sheets(made)),
    ]
    unfinished = [
        f"Run {label} ({facts.stage}) {ENDED.get(facts.status, 'did not finish')}"
        for label, (facts, _) in made
        if not facts.finished
    ]
    statements = [Statement(f"{'; '.join(unfinished)}.", "runs")] if unfinished else []
    stages = {facts.stage for _, (facts, _) in made}
    about = f"{len(made)} runs of {', '.join(sorted(stages))}, side by side."
    return Page(f"Comparison of {len(made)} runs", about, FINISHED, "", statements, sections)


def _runs(made: Labelled, runs: Sequence[RecordedRun]) -> Table:
    rows = []
    for (label, (facts, _)), run in zip(made, runs, strict=True):
        speed = next((text for name, text in stage.throughput(facts).items() if name.startswith("samples")), "")
        rows.append(
            [
                Cell(label),
                Cell(facts.stage),
                Cell(facts.status.lower(), "" if facts.finished else "worst"),
                Cell(run.id, "code"),
                Cell(stage.moment(facts.execution.began) if facts.execution.began else "", "number"),
                Cell(stage.seconds_of(facts), "number"),
                Cell(speed, "number"),
                Cell(facts.recipe),
                Cell(facts.execution.commit[:DIGITS] + ("+" if facts.execution.dirty else ""), "code"),
            ]
        )
    head = ["run", "stage", "ended", "id", "began", "time", "samples a second", "nearest recipe", "commit"]
    return Table(head, rows)


def _parameters(made: Labelled) -> Iterator[Block]:
    keys = dict.fromkeys(key for _, (facts, _) in made for key in facts.params)
    stages = [facts.stage for _, (facts, _) in made]
    rows = []
    for key in keys:
        concerned = [one for one in made if stages.count(one[1][0].stage) > 1 and key.startswith(f"{one[1][0].stage}.")]
        values = {label: stage.plain(facts.params.get(key, ABSENT)) for label, (facts, _) in concerned}
        if len({*values.values()}) > 1:
            rows.append([Cell(key, "code"), *(Cell(values.get(label, "")) for label, _ in made)])
    if rows:
        yield Table(["parameter", *(label for label, _ in made)], rows)
    elif len({*stages}) == len(stages) > 1:
        yield Text("These are runs of different stages, which have no parameter in common.")
    else:
        yield Text("None: these runs had the same parameters.")
    inputs = dict.fromkeys(path for _, (facts, _) in made for path in facts.inputs)
    rows = []
    for path in inputs:
        digests = [facts.inputs.get(path, "") for _, (facts, _) in made]
        if len({*digests}) > 1:
            rows.append([Cell(path, "code"), *(Cell(digest[:DIGITS] or "not read", "code") for digest in digests)])
    if rows:
        yield Heading("What they read, where it differs")
        yield Table(["input", *(label for label, _ in made)], rows)


def _figures(made: Labelled) -> Iterator[Block]:
    """Estimates with their intervals; other figures as they are."""
    metrics = [(label, model.metrics_of(*one)) for label, one in made]
    names = dict.fromkeys(name for _, one in metrics if one is not None for name in estimates(one))
    if names:
        yield Text(
            "Dots are values, bars their 95 % intervals. Where these are well apart, runs differ by more than chance."
        )
    rows = []
    for name in names:
        found = [
            (label, estimates(one)[name], one) for label, one in metrics if one is not None and name in estimates(one)
        ]
        ends = [end for _, figure, _ in found for end in (figure["low"], figure["high"])]
        scale = {"lowest end": min(ends), "highest end": max(ends)}
        for label, figure, one in found:
            against = {line.of: line.value for line in beside(one, name)}
            rows.append(
                [
                    Cell(name, "code"),
                    Cell(label),
                    Cell("", drawing=strip(figure["value"], figure["low"], figure["high"], scale)),
                    Cell(number(figure["value"]), "number"),
                    Cell(f"{number(figure['low'])} to {number(figure['high'])}", "number"),
                    Cell(", ".join(f"{of} {number(value)}" for of, value in against.items())),
                ]
            )
    if rows:
        yield Table(["figure", "run", "", "value", "95 % interval", "read against"], rows)
    others = [(label, stage.all_figures(*one)) for label, one in made]
    keys = list(dict.fromkeys(key for _, values in others for key in values))
    if keys:
        plain_rows = [
            [Cell(key, "code"), *(Cell(values.get(key, ""), "number") for _, values in others)]
            for key in keys[:MOST_FIGURES]
        ]
        yield Table(["figure", *(label for label, _ in others)], plain_rows)
    if len(keys) > MOST_FIGURES:
        yield Text(f"And {len(keys) - MOST_FIGURES:,} more, in {stage.METRICS}.")


def _curves(made: Labelled) -> Iterator[Block]:
    """Each curve of all runs on one chart, those on held-out data first."""
    lines: dict[str, dict[str, Points]] = {}
    for label, one in made:
        for name, points in stage.all_curves(*one).items():
            lines.setdefault(name, {})[label] = points
    names = sorted(lines, key=lambda name: (not name.startswith("held_out"), name))
    titles = {name: name if len(lines[name]) > 1 else f"{name}, {next(iter(lines[name]))} alone" for name in names}
    drawn = [(chart, "") for name in names[:CHARTS] if (chart := curves(titles[name], lines[name]))]
    if drawn:
        yield Drawings(drawn)
    if len(names) > CHARTS:
        yield Text(f"And {counted(len(names) - CHARTS, 'more curve')}, in MLflow.")


def _sheets(made: Labelled) -> Iterator[Block]:
    """The sheets of the same name of all runs side by side, so that the same prompts stand at the same place."""
    found: dict[str, list[Picture]] = {}
    for label, (facts, files) in made:
        outputs = [path for path in facts.outputs if path.startswith(f"{REPORTS}/")]
        names = [name for path in outputs for name in ([path] if path.endswith(".png") else files.below(path, ".png"))]
        names += [row[-1] for row in files.rows_of_pictures().values()]
        for name in names:
            path = PurePosixPath(name)
            title = f"{path.parent.name} at the end of training" if path.stem.startswith("step_") else path.stem
            if title != "curves" and (visible := picture(files.read(name), f"{label}: {stage.words_of(name)}")):
                found.setdefault(title, []).append(visible)
    for title, pictures in found.items():
        yield Heading(title.replace("_", " "))
        yield Pictures(pictures, row=len(pictures) > 1)


def _letter(i: int) -> str:
    """A, B, …, Z, AA, …"""
    return (_letter(i // 26 - 1) if i >= 26 else "") + ascii_uppercase[i % 26]


def _section(name: str, title: str, blocks: Iterator[Block]) -> list[Section]:
    found = list(blocks)
    return [Section(name, title, found)] if found else []
