"""Pages: of a run of a stage, and of the model with all stages behind it."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from darkroom.reporting import copies
from darkroom.reporting import model_sections as model
from darkroom.reporting import stage_sections as stage
from darkroom.reporting.blocks import Block, Cell, Heading, Page, Section, Statement, Table, Text, timed
from darkroom.reporting.charts import bar, counted
from darkroom.reporting.facts import Facts, Files

TIMED = re.compile(r"<!--timed-->.*?<!--/timed-->", re.DOTALL)
LEFT_OUT = "<!--timed-->"
# What a browser may load and run: the pictures in the page, its styles, and its one script, by the hash of it.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'"

Made = tuple[Facts, Files]


def render(page: Page) -> str:
    """The page as HTML that asks for nothing else."""
    text: str = _environment().get_template("page.html.j2").render(page=page)
    return text


def timeless(text: str) -> str:
    """A rendered page without what no second run has alike."""
    return TIMED.sub(LEFT_OUT, text)


@cache
def _environment() -> Any:
    import jinja2

    templates = Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (templates / "scroll.js").read_text(encoding="utf-8")
    environment.globals |= {
        "style": Markup((templates / "style.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "policy": POLICY.format(script=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()),
    }
    return environment


def stage_page(facts: Facts, files: Files) -> Page:
    """The report of one run of a stage."""
    metrics = model.metrics_of(facts, files)
    sections = [
        *_of_model(facts, files, metrics),
        _section("results", "Figures", stage.figures(facts, files)),
        _section("levels", "Held-out loss by noise level", stage.losses_by_level(facts, files)),
        _section("curves", "Curves", stage.training_curves(facts, files)),
        _section("films", "Samples over the training", stage.films(files)),
        _section("sheets", "Pictures", () if metrics else stage.sheets(facts, files)),
        _section("execution", "Time, memory and machine", stage.execution(facts)),
        _section("lineage", "Lineage", stage.lineage(facts, facts.stage, stage.source_of(facts))),
        _section("parameters", "Parameters", stage.parameters(facts)),
    ]
    statements = [*(model.statements(metrics, files) if metrics else ()), *_took([(facts, files)])]
    return Page(facts.stage, facts.about, facts.status, facts.reason, statements, _filled(sections))


def model_page(made: Sequence[Made]) -> Page:
    """The report of a model: of the last run of each stage, in the order in which they build on each other."""
    by_stage = {facts.stage: (facts, files) for facts, files in made}
    facts, files = by_stage.get("evaluate", made[-1])
    metrics = model.metrics_of(facts, files)
    source = next((found for one, _ in made if (found := stage.source_of(one))), "")
    sections = _of_model(facts, files, metrics)
    for one, its_files in made:
        if one.stage != facts.stage or metrics is None:
            sections.append(_section(f"stage-{one.stage}", one.stage, _of_stage(one, its_files)))
    sections += [
        _section("execution", "Time, memory and machine", _times(made)),
        _section("lineage", "Lineage", stage.lineage(facts, source=source)),
        _section("parameters", "Parameters", _all_parameters(made)),
    ]
    statements = [*(model.statements(metrics, files) if metrics else ()), *_took(made)]
    broken = [one for one, _ in made if not one.finished]
    status, reason = (broken[0].status, f"{broken[0].stage}: {broken[0].reason}") if broken else (facts.status, "")
    left_out = [name for name in facts.lineage if name not in by_stage]
    missing = "" if metrics else " It was not evaluated yet."
    missing += f" No report is kept of {', '.join(left_out)}; darkroom report writes it." if left_out else ""
    about = f"The model that this project made, and {_stages(len(made))} behind it.{missing}"
    return Page(_name(made), about, status, reason, statements, _filled(sections))


def _of_model(facts: Facts, files: Files, metrics: Mapping[str, Any] | None) -> list[Section | None]:
    if metrics is None:
        return []
    return [
        _section("samples", "What it draws", model.samples(facts, files, True)),
        _section("figures", "Figures", model.figures(metrics)),
        _section("attributes", "What is drawn right, and what is confused", model.attributes(metrics, files)),
        _section("neighbours", "Nearest training pictures", copies.neighbours(files)),
        _section("pictures", "More pictures", model.samples(facts, files, False)),
    ]


def _of_stage(facts: Facts, files: Files) -> Iterator[Block]:
    """A stage in the report of a model."""
    if facts.about:
        yield Text(f"{facts.about}.")
    if not facts.finished:
        yield Text(f"It did not finish: {facts.reason or facts.status.lower()}")
    pieces: list[tuple[str, Callable[[], Iterable[Block]]]] = [
        ("Held-out loss by noise level", lambda: stage.losses_by_level(facts, files)),
        ("Curves", lambda: stage.training_curves(facts, files)),
        ("Samples over the training", lambda: stage.films(files)),
        ("Pictures", lambda: stage.sheets(facts, files)),
        ("Figures", lambda: stage.figures(facts, files)),
    ]
    for title, make in pieces:
        if blocks := list(make()):
            yield Heading(title)
            yield from blocks


def _times(made: Sequence[Made]) -> list[Block]:
    """What each stage took, in the order in which they ran, the longest bar the slowest."""
    made = sorted(made, key=lambda one: one[0].execution.began)
    seconds = {facts.stage: facts.execution.seconds or 0.0 for facts, _ in made}
    longest = max([*seconds.values(), 1e-9])
    rows = []
    for facts, _ in made:
        speed = stage.throughput(facts)
        rows.append(
            [
                Cell(facts.stage, "code"),
                Cell("", drawing=bar(seconds[facts.stage] / longest)),
                Cell(stage.seconds_of(facts), "number"),
                Cell(next((text for label, text in speed.items() if label.startswith("samples")), ""), "number"),
                Cell(next((text for label, text in speed.items() if label.startswith("MFU")), ""), "number"),
                Cell(stage.memory_of(facts), "number"),
                Cell(stage.moment(facts.execution.began) if facts.execution.began else "", "number"),
                Cell(facts.execution.commit[:8] + ("+" if facts.execution.dirty else ""), "code"),
            ]
        )
    head = ["stage", "", "time", "samples a second", "MFU", "memory, at most", "began", "commit"]
    profiles = {
        "; ".join(
            f"{key.removeprefix('version.').replace('_', ' ')} {value}"
            for key, value in facts.execution.profile.items()
        )
        for facts, _ in made
    }
    blocks: list[Block] = [
        Text(
            "MFU is the share of the device's peak that the training's arithmetic reaches; + marks a commit with "
            "uncommitted changes. Samples a second and MFU are medians over the training. Times are those of the "
            "stages themselves: what passed between them, as while dvc and Python started, comes on top."
        ),
        Table(head, rows),
        *(Text(f"Ran on: {profile}.") for profile in sorted(profiles) if profile),
    ]
    return timed(blocks)


def _all_parameters(made: Sequence[Made]) -> Iterator[Block]:
    names = {facts.recipe for facts, _ in made}
    of_recipe = len(names) == 1 and not any(facts.changed for facts, _ in made) and names != {""}
    if of_recipe:
        yield Text(f"All parameters are those of the recipe {names.pop()}.")
    for facts, _ in made:
        yield Heading(facts.stage)
        yield from stage.parameters(facts, differences=not of_recipe)


def _took(made: Sequence[Made]) -> Iterator[Statement]:
    known = {facts.stage: facts.execution.seconds for facts, _ in made if facts.execution.seconds is not None}
    if not known:
        return
    total = sum(seconds for seconds in known.values() if seconds)
    if len(known) == 1:
        yield Statement(f"It took {total:,.0f} s.", "execution", timed=True)
        return
    each = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in known.items())
    yield Statement(f"The stages took {total:,.0f} s in all: {each}.", "execution", timed=True)


def _stages(n: int) -> str:
    return "the stage" if n == 1 else f"the {counted(n, 'stage')}"


def _name(made: Sequence[Made]) -> str:
    recipes = {facts.recipe for facts, _ in made if facts.recipe}
    return f"Model of the recipe {recipes.pop()}" if len(recipes) == 1 else "Model"


def _section(name: str, title: str, blocks: Iterable[Block]) -> Section | None:
    found = list(blocks)
    return Section(name, title, found) if found else None


def _filled(sections: Sequence[Section | None]) -> list[Section]:
    return [section for section in sections if section is not None]
