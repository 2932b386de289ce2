"""The parts of a report that tell how good a model is: figures with what they are read against, attributes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.evaluation.limits import measured
from darkroom.evaluation.report import beside, estimates, withheld
from darkroom.reporting.blocks import Block, Cell, Heading, Pictures, Statement, Table, Text, picture
from darkroom.reporting.charts import counted, number, percent, strip
from darkroom.reporting.copies import CLOSENESS, copies
from darkroom.reporting.facts import WITH_RUN, Facts, Files
from darkroom.reporting.stage_sections import words_of

OF_JUDGES = "evaluator."  # figures about the judges, not the model
METRICS = "reports/evaluation/metrics.json"
CONFUSIONS = f"{WITH_RUN}/confusions.json"  # see stages/evaluate.py
GROUPS = ("by_attribute", "by_class")
MOST_CLASSES = 12  # of an attribute whose confusions are a table; of others the commonest are listed
MOST_LISTED = 12
MEANINGS = {  # by the last part of a figure's path
    "exact_match": "pictures that show all that was asked for",
    "attribute_accuracy": "attributes that were asked for and are right",
    "class_accuracy": "pictures of the class that was asked for",
    "caption_retrieval": "pictures whose own caption is the nearest of 100",
    "disagreement": "pictures that the two judges read differently; lower is better",
    "fid": "distance to real pictures in the judges' features; below that of other real pictures where drawn ones show "
    "the very captions",
    "kid": "the same distance by kernels, without FID's bias for few pictures; lower is better",
    "precision": "drawn pictures that lie among real ones",
    "recall": "real pictures that lie among drawn ones",
    CLOSENESS: "drawn pictures nearer to training pictures than new real ones are; above 0.5 speaks of copies",
    "psnr": "likeness of what the autoencoder keeps, in dB; higher is better",
    "ssim": "likeness in structure of what the autoencoder keeps; 1 is the same picture",
}
FIRST = ("samples", "novel")
SPLITS = {"test": "captions like those of training", "novel": "captions with combinations that training never showed"}


@dataclass(frozen=True)
class Confused:
    """Something that was asked for and read as something else, n times, in a share of its readings.

    real: the share of the readings of real pictures in which it was, too; None where that was not counted.
    """

    asked: str
    read: str
    fraction: float
    n: int
    real: float | None


def metrics_of(facts: Facts, files: Files) -> Mapping[str, Any] | None:
    """What evaluate measured; None where there is nothing of the kind."""
    found = files.json(METRICS) if METRICS in facts.outputs else None
    return found if isinstance(found, dict) and isinstance(found.get("alignment"), dict) else None


def statements(metrics: Mapping[str, Any], files: Files) -> Iterator[Statement]:
    """What a reader should know first, a sentence each."""
    for limit in measured(metrics):
        yield Statement(limit.replace("`", ""), "figures")
    if worst := worst_attribute(metrics):
        group, split, name, figure, real = worst
        what = "attribute" if group == "by_attribute" else "class"
        text = (
            f"Worst {what}: {name}. Of {counted(figure['n'], f'{split} caption')} asking for it, "
            f"{percent(figure['value'])} are drawn right "
            f"(95 % interval {percent(figure['low'])} to {percent(figure['high'])}"
            + (f"; of real pictures the judges read {percent(real)} right)" if real is not None else ")")
        )
        if confused := confusions_of(files, split, group, name):
            first = confused[0]
            text += (
                f". What goes wrong most: {first.asked} is read as {first.read}, {percent(first.fraction)} of the time"
            )
            text += "" if first.real is None else f" ({percent(first.real)} of the time off real pictures)"
        yield Statement(f"{text}.", "attributes")
    fid = metrics["fidelity"].get("fid")
    if fid:
        lines = {line.of: line.value for line in beside(metrics, "fidelity.fid")}
        against = "; ".join(f"{of} {number(value)}" for of, value in lines.items())
        yield Statement(
            f"Distance to real pictures (FID in the features of the judges, which published ones do not compare with): "
            f"{number(fid['value'])}, to be read against {against}.",
            "figures",
        )
    yield from copies(metrics, files)


def worst_attribute(metrics: Mapping[str, Any]) -> tuple[str, str, str, Mapping[str, Any], float | None] | None:
    """Group, split, name, figure, and what judges read right of real pictures; None where nothing is asked for."""
    found = [
        (figure["value"], name, group, split, figure)
        for split, figures in metrics["alignment"].items()
        for group in GROUPS
        for name, figure in figures.get(group, {}).items()
    ]
    if not found:
        return None
    _, name, group, split, figure = min(found, key=lambda one: one[:2])
    return group, split, name, figure, real_of(metrics, split, group, name)


def real_of(metrics: Mapping[str, Any], split: str, group: str, name: str) -> float | None:
    """What the judges read right of real pictures of a split: the ceiling."""
    figure = metrics["evaluator"].get("real", {}).get(split, {}).get(group, {}).get(name)
    return figure["value"] if figure else None


def samples(facts: Facts, files: Files, first: bool) -> Iterator[Block]:
    """The sheets of the evaluation: what it draws (`first`), or all others."""
    names = [name for path in facts.outputs if path.startswith("reports/") for name in files.below(path, ".png")]
    names = [name for name in names if (name.rpartition("/")[2].removesuffix(".png") in FIRST) == first]
    names.sort(reverse=first)
    visible = [visible for name in names if (visible := picture(files.read(name), words_of(name)))]
    if visible:
        yield Pictures(visible)


def figures(metrics: Mapping[str, Any]) -> Iterator[Block]:
    """Every figure with its interval, and what it is to be read against."""
    rows = []
    of_model = {name: figure for name, figure in estimates(metrics).items() if not name.startswith(OF_JUDGES)}
    for name, figure in of_model.items():
        against = {line.of: line.value for line in beside(metrics, name)}
        if name.endswith(CLOSENESS):
            against = {"expected of new pictures": 0.5}
        rows.append(
            [
                Cell(MEANINGS.get(name.rpartition(".")[2], ""), below=name),
                Cell("", drawing=strip(figure["value"], figure["low"], figure["high"], against, _is_share(name))),
                Cell(number(figure["value"]), "number"),
                Cell(f"{number(figure['low'])} to {number(figure['high'])}", "number"),
                Cell(f"{figure['n']:,}", "number"),
                Cell(", ".join(f"{of} {number(value)}" for of, value in against.items())),
            ]
        )
    yield Text(
        "Dots are values, bars their 95 % intervals, ticks what each is to be read against: chance is what the same "
        "pictures get for shuffled captions, real pictures are the ceiling, noise and blurred pictures are "
        "deliberately bad. Judges are two networks that saw real pictures alone, each one half of them."
    )
    yield Table(["figure", "", "value", "95 % interval", "pictures", "read against"], rows)
    if metrics.get("withheld"):
        yield Heading("Withheld")
        yield Table(
            ["figure", "why"], [[Cell(", ".join(names), "code"), Cell(why)] for why, names in withheld(metrics).items()]
        )
    if not metrics["evaluator"].get("valid", True):
        yield Text(f"The judges cannot be believed: {metrics['evaluator'].get('reason', '')}.")


def attributes(metrics: Mapping[str, Any], files: Files) -> Iterator[Block]:
    """What is drawn right of each attribute or class, the worst first, and what is confused with what."""
    confusions = files.json(CONFUSIONS)
    confusions = confusions if isinstance(confusions, dict) else {}
    for split, asked in metrics["alignment"].items():
        for group in GROUPS:
            if asked.get(group):
                yield Heading(f"{split}: {SPLITS.get(split, 'captions')}")
                yield _table(metrics, split, group, confusions)
        if isinstance(confusions.get(split), dict):
            yield Text(
                "What is asked for, a row each, and what the judges read off the drawn pictures, a column each, in "
                "percent of the row, in brackets off real pictures of the same captions; the attribute that is drawn "
                "worst comes first. Each of the two judges counts, so that half a picture is one that they read "
                "differently; first and second things are those that the caption names first and second."
            )
            yield from _confused(confusions[split], asked)


def _table(metrics: Mapping[str, Any], split: str, group: str, confusions: Mapping[str, Any]) -> Table:
    asked = metrics["alignment"][split][group]
    chance = {
        name: constant for name, one in confusions.get(split, {}).items() if (constant := _constant(one)) is not None
    }
    rows = []
    for i, (name, figure) in enumerate(sorted(asked.items(), key=lambda one: (one[1]["value"], one[0]))):
        real, floor = real_of(metrics, split, group, name), chance.get(name)
        against = {"real pictures": real} if real is not None else {}
        against |= {"best constant answer": floor} if floor is not None else {}
        rows.append(
            [
                Cell(name, "worst" if i == 0 else "code"),
                Cell("", drawing=strip(figure["value"], figure["low"], figure["high"], against, True)),
                Cell(percent(figure["value"]), "number"),
                Cell(f"{percent(figure['low'])} to {percent(figure['high'])}", "number"),
                Cell(f"{figure['n']:,}", "number"),
                Cell("" if real is None else percent(real), "number"),
                Cell("" if floor is None else percent(floor), "number"),
            ]
        )
    what = "attribute" if group == "by_attribute" else "class"
    return Table([what, "", "right", "95 % interval", "asked", "real pictures", "best constant answer"], rows)


def _confused(heads: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[Block]:
    order = {name: figure["value"] for name, figure in asked.get("by_attribute", {}).items()}
    for name in sorted(heads, key=lambda one: (order.get(one, 1.0), one)):
        classes, counts = heads[name]["classes"], heads[name]["counts"]
        if not sum(map(sum, counts)):
            continue
        if len(classes) > MOST_CLASSES:
            listed = confused_among(heads[name])[:MOST_LISTED]
            if listed:
                rows = [
                    [
                        Cell(one.asked),
                        Cell(one.read),
                        Cell(percent(one.fraction), "number"),
                        Cell("" if one.real is None else percent(one.real), "number"),
                    ]
                    for one in listed
                ]
                head = ["asked for", "read as", "of its readings", "of real pictures"]
                yield Table(head, rows, caption=f"{name}: commonest confusions")
            continue
        real = heads[name].get("real") or [[0 for _ in row] for row in counts]
        nothing = any(row[-1] for row in (*counts, *real))
        rows = []
        for label, row, of_real in zip(classes, counts, real, strict=True):
            if total := sum(row):
                cells = zip(row, of_real, strict=True) if nothing else zip(row[:-1], of_real[:-1], strict=True)
                rows.append(
                    [
                        Cell(f"{label} (asked {counted(total // 2, 'time')})"),
                        *(Cell(_in_percent(n, total, also), "number", n / total) for n, also in cells),
                    ]
                )
        yield Table(["", *classes, *(["not there"] if nothing else [])], rows, caption=name, matrix=True)


def confusions_of(files: Files, split: str, group: str, name: str) -> list[Confused]:
    """What an attribute, or a class of the one attribute there is, is confused with, the commonest first."""
    found = files.json(CONFUSIONS)
    heads = found.get(split, {}) if isinstance(found, dict) else {}
    of_class = group == "by_class"
    head = next(iter(heads.values()), None) if of_class else heads.get(name)
    return [one for one in confused_among(head) if not of_class or one.asked == name] if head else []


def confused_among(head: Mapping[str, Any]) -> list[Confused]:
    """All that is confused of an attribute, as `looking.confusions` counts it, the commonest first."""
    classes, counts, real = head["classes"], head["counts"], head.get("real")
    found = [
        Confused(
            label, ([*classes, "not there"])[j], n / sum(row), n, real[i][j] / max(1, sum(real[i])) if real else None
        )
        for i, (label, row) in enumerate(zip(classes, counts, strict=True))
        for j, n in enumerate(row)
        if n and j != i
    ]
    return sorted(found, key=lambda one: (-one.n, -one.fraction, one.asked, one.read))


def _is_share(name: str) -> bool:
    return name.startswith("alignment.") or name.rpartition(".")[2] in (CLOSENESS, "precision", "recall", "ssim")


def _in_percent(count: int, total: int, real: int = 0) -> str:
    """Of a total, in percent; in brackets that of as many real pictures."""
    if real:
        return f"{_in_percent(count, total) or '0'} ({_in_percent(real, total)})"
    fraction = 100 * count / total
    return (
        "" if not count else f"{fraction:.0f}" if fraction >= 9.95 or fraction == round(fraction) else f"{fraction:.1f}"
    )


def _constant(head: Any) -> float | None:
    """How often the best constant answer is right."""
    asked = [sum(row) for row in head["counts"]]
    return max(asked) / sum(asked) if sum(asked) else None
