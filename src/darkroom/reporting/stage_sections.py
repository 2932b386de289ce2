"""The parts of a report that every stage has: figures, curves, pictures, lineage, parameters, what it took."""

import csv
import io
import statistics
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from darkroom.config.recipes import ABSENT
from darkroom.core.progress import duration
from darkroom.reporting.blocks import Block, Cell, Drawings, Heading, Pictures, Table, Text, picture, timed
from darkroom.reporting.charts import Points, counted, curves, number
from darkroom.reporting.facts import STEP, Facts, Files, Series
from darkroom.reporting.graph import lineage_graph

BY_TIME = "held_out_by_time/"  # curves of the held-out loss by noise level
BY_CHANCE = "_by_chance"  # ends the name of what a figure is to be read against
COMPARED = ("train", "held_out")  # groups whose curves of one name share a chart
CURVES, METRICS = "curves.csv", "metrics.json"
MOST_FIGURES = 60
WORDS = {  # of pictures, by their file's name
    "contact_sheet": "A few pictures of each split with their captions, as the training sees them.",
    "reconstructions": "Held-out pictures, and what the autoencoder makes of them.",
    "preview": "Latents seen as colours by a linear map, beside the pictures that they are of.",
    "samples": "Drawn pictures beside real ones of the same captions.",
    "novel": "Drawn for captions with combinations that no training caption had.",
    "guidance_sweep": "The same captions and noise at several strengths of guidance.",
    "denoising": "How pictures come about: so far, and below what the model expects of them.",
    "forward": "What the noise process makes of held-out pictures.",
    "neighbours": "The drawn pictures likeliest to be copies, each beside its nearest training pictures.",
}


def figures(facts: Facts, files: Files) -> Iterator[Block]:
    """The numbers in a stage's metrics.json, each with its level by chance where there is one."""
    single: dict[str, Any] = {}
    for name, value in _measured(facts, files).items():
        if (rows := dict(_rows_of(value))) and len(rows) > 1:
            yield _matrix(name, rows)
        else:
            single |= dict(_flat({name: value}))
    chance = {name.removesuffix(BY_CHANCE): value for name, value in single.items() if name.endswith(BY_CHANCE)}
    names = [name for name in single if not name.endswith(BY_CHANCE)]
    both = any(name in chance for name in names)
    lines = [[Cell(name), *(Cell(_number(of.get(name)), "number") for of in (single, chance))] for name in names]
    if lines:
        columns = 3 if both else 2
        head = ["figure", "value", "by chance"][:columns]
        yield Table(head, [line[:columns] for line in lines[:MOST_FIGURES]])
    if alone := {name: value for name, value in chance.items() if name not in names}:  # of figures in a table above
        cells = [[Cell(name), Cell(_number(value), "number")] for name, value in alone.items()]
        yield Table(["figure", "by chance"], cells[:MOST_FIGURES])
    if len(lines) > MOST_FIGURES:
        yield Text(f"And {len(lines) - MOST_FIGURES} more, in {METRICS}.")


def all_figures(facts: Facts, files: Files) -> dict[str, str]:
    """Each number in a stage's metrics.json by its path, however deep it lies."""
    return {name: _number(value) for name, value in _flat(_measured(facts, files))}


def _measured(facts: Facts, files: Files) -> Mapping[str, Any]:
    """What a stage's metrics.json holds; nothing of an evaluation's, which has sections of its own."""
    values = next((files.json(path) for path in facts.outputs if path.endswith(f"/{METRICS}")), None)
    return values if isinstance(values, Mapping) and "alignment" not in values else {}


def _rows_of(value: Any, before: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The mappings in a figure that hold numbers, by their path."""
    if isinstance(value, Mapping):
        if value and not any(isinstance(one, Mapping) for one in value.values()):
            yield before, value
        for name, one in value.items():
            yield from _rows_of(one, f"{before}.{name}" if before else name)


def _matrix(name: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    cells = [[Cell(path), *(Cell(_number(row.get(key)), "number") for key in columns)] for path, row in rows.items()]
    return Table(["", *columns], cells[:MOST_FIGURES], caption=name)


def training_curves(facts: Facts, files: Files) -> Iterator[Block]:
    """Charts of all curves but those by noise level, which come first among what is to be compared."""
    panels: dict[str, dict[str, Points]] = {}
    for name, points in all_curves(facts, files).items():
        if name.startswith(BY_TIME):
            continue
        group, _, value = name.partition("/")
        title, label = (value, group) if group in COMPARED else (group, value)
        panels.setdefault(title or name, {})[label] = points
    names = sorted(panels, key=lambda title: ("held_out" not in panels[title], title))
    drawings = [
        (chart, "")
        for title in names
        if (chart := curves(title, panels[title], may_be_logarithmic="learning_rate" not in title))
    ]
    if drawings:
        yield Drawings(drawings)


def losses_by_level(facts: Facts, files: Files) -> Iterator[Block]:
    """The held-out loss of each part of the noise process, over the training and at its end."""
    found = {name: points for name, points in all_curves(facts, files).items() if name.startswith(BY_TIME)}
    found = {_range(name): points for name, points in sorted(found.items()) if points}
    if not found:
        return
    yield Text(
        "Held-out loss, as it is weighted in training, in each part of the noise process. Each part has a scale of its "
        "own: compare a part with itself over the training, or with the same part of another run. The first part is "
        "almost clean, the last almost pure noise."
    )
    yield Drawings([(curves("held-out loss by part of the noise process", found), "")])
    rows = [
        [Cell(label), Cell(number(points[0][1]), "number"), Cell(number(points[-1][1]), "number")]
        for label, points in found.items()
    ]
    yield Table(["part of the noise process", "loss when first measured", "loss at the end"], rows)


def all_curves(facts: Facts, files: Files) -> Series:
    """The curves of a training: from its file, or, where it did not finish, what it had told."""
    path = next((path for path in facts.outputs if path.endswith(f"/{CURVES}")), "")
    content = files.read(path) if path else None
    if content is None:
        return facts.curves
    found: dict[str, list[tuple[int, float]]] = {}
    try:
        for row in csv.DictReader(io.StringIO(content.decode())):
            step = int(float(row.pop("step")))
            for name, value in row.items():
                if value:
                    found.setdefault(name, []).append((step, float(value)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return found


def films(files: Files) -> Iterator[Block]:
    """The pictures that a training showed on its way, a row each."""
    for name, names in sorted(files.rows_of_pictures().items(), key=lambda row: (row[0] != "samples", row[0])):
        visible = [visible for one in names if (visible := picture(files.read(one), _step(one)))]
        if visible:
            yield Heading(
                {"samples": "Samples of the same captions and noise", "denoising": "How they come about"}.get(
                    name, name
                )
            )
            yield Pictures(visible, row=True)


def sheets(facts: Facts, files: Files) -> Iterator[Block]:
    """The pictures among a stage's outputs."""
    names = [name for path in facts.outputs for name in ([path] if path.endswith(".png") else _sheets_in(path, files))]
    filmed = {f"{name}.png" for name in files.rows_of_pictures()}
    visible = [
        visible
        for name in names
        if (base := PurePosixPath(name).name) not in filmed and base != "curves.png"
        if (visible := picture(files.read(name), words_of(name)))
    ]
    if visible:
        yield Pictures(visible)


def words_of(name: str) -> str:
    """What a picture shows, by its file's name."""
    path = PurePosixPath(name)
    return _step(name) if STEP.fullmatch(path.name) else WORDS.get(path.stem, path.stem.replace("_", " "))


def lineage(facts: Facts, here: str = "", source: str = "") -> Iterator[Block]:
    """The graph of what was made from what, and all hashes in full. source: of the pictures, in words."""
    yield Text(
        "From what the model was made. Beside each artifact stand the first digits of the hash of its content, as in "
        "dvc.lock; the same bytes have the same hash everywhere. darkroom audit compares them with the disk. What a "
        "stage reads from one that others stand between has no arrow of its own."
    )
    yield Drawings([(lineage_graph(facts.lineage, here), "")], wide=True)
    rows = [
        [Cell(path, "code"), Cell(digest, "code"), Cell(stage)]
        for stage, step in facts.lineage.items()
        for path, digest in step["outputs"].items()
    ]
    made = {path for step in facts.lineage.values() for path in step["outputs"]}
    outside = {
        path: digest
        for step in facts.lineage.values()
        for path, digest in step["inputs"].items()
        if path not in made and not any(str(above) in made for above in PurePosixPath(path).parents)
    }
    if source:
        yield Text(f"The pictures come from the source {source}.")
    if facts.execution.commit:
        ran = facts.execution
        yield Text(
            f"The code was that of commit {ran.commit}{', with uncommitted changes' if ran.dirty else ''}.", timed=True
        )
    yield Table(
        ["artifact", "content", "made by"],
        [
            *([Cell(path, "code"), Cell(digest, "code"), Cell("from outside")] for path, digest in outside.items()),
            *rows,
        ],
    )


def source_of(facts: Facts) -> str:
    """Where the pictures come from, of a stage that reads or draws them; "" for all others."""
    kind, root = (facts.params.get(f"{facts.stage}.source.{key}") for key in ("kind", "root"))
    if not kind:
        return ""
    if not facts.params.get(f"{facts.stage}.source.manifest"):
        return f"{kind}, drawn by {facts.stage} itself with seed {plain(facts.params.get(f'{facts.stage}.seed'))}"
    return f"{kind}, in {root}, by the manifest {facts.params[f'{facts.stage}.source.manifest']}"


def parameters(facts: Facts, differences: bool = True) -> Iterator[Block]:
    """What differs from the nearest recipe, unless that has been said, and all values."""
    if not differences:
        pass
    elif not facts.recipe:
        yield Text("Which recipe the parameters are nearest to is not known.")
    elif not facts.changed:
        yield Text(f"All parameters of this are those of the recipe {facts.recipe}.")
    else:
        yield Text(f"The parameters are those of the recipe {facts.recipe} but for these.")
        rows = [[Cell(key, "code"), Cell(plain(ours)), Cell(plain(its))] for key, (ours, its) in facts.changed.items()]
        yield Table(["parameter", "here", f"recipe {facts.recipe}"], rows)
    if facts.params:
        rows = [[Cell(key, "code"), Cell(plain(value))] for key, value in facts.params.items()]
        yield Table(["parameter", "value"], rows, caption=f"All {len(rows)} parameters", folded=True)


def execution(facts: Facts) -> list[Block]:
    """When it ran, on what, and what it took."""
    ran = facts.execution
    rows = [("time", seconds_of(facts))]
    rows += [(f"{label}, median", text) for label, text in throughput(facts).items()]
    rows += [("memory, at most", memory)] if (memory := memory_of(facts)) else []
    if ran.began:
        rows.append(("began", moment(ran.began)))
    rows.append(("commit", (ran.commit or "not known") + (", with uncommitted changes" if ran.dirty else "")))
    if ran.resumed:
        rows.append(("resumed", f"from the checkpoint of step {ran.resumed}"))
    rows += [(key.removeprefix("version.").replace("_", " "), value) for key, value in ran.profile.items()]
    blocks: list[Block] = [Table(["", ""], [[Cell(name), Cell(value)] for name, value in rows])]
    speed = ran.series.get("throughput/samples_per_second")
    if speed and len(speed) > 1:
        blocks.insert(1, Drawings([(curves("samples a second", {"samples a second": speed}, None, "step", False), "")]))
    return timed(blocks)


def throughput(facts: Facts) -> dict[str, str]:
    """Samples a second and MFU, the median over the training."""
    labels = {
        "throughput/samples_per_second": ("samples a second", "{:.0f}"),
        "throughput/mfu": ("MFU (share of the device's peak)", "{:.0%}"),
    }
    return {
        label: form.format(statistics.median(value for _, value in points))
        for name, (label, form) in labels.items()
        if (points := facts.execution.series.get(name))
    }


def memory_of(facts: Facts) -> str:
    ran = facts.execution
    pieces = [f"{ran.memory_mib:,.0f} MiB"] if ran.memory_mib else []
    pieces += [f"{ran.device_memory_mib:,.0f} MiB on the device"] if ran.device_memory_mib else []
    return ", ".join(pieces)


def seconds_of(facts: Facts) -> str:
    seconds = facts.execution.seconds
    if seconds is None:
        return "still running" if facts.status == "RUNNING" else "not known"
    return f"{seconds:,.0f} s" + (f" ({duration(seconds)})" if seconds >= 60 else "")


def moment(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def plain(value: Any) -> str:
    """A parameter as params.yaml has it, about."""
    if value == ABSENT:
        return "absent"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _sheets_in(folder: str, files: Files) -> list[str]:
    return files.below(folder, ".png") if folder.startswith("reports/") else []


def _step(name: str) -> str:
    return f"after {counted(int(PurePosixPath(name).stem.removeprefix('step_')), 'step')}"


def _range(name: str) -> str:
    low, _, high = name.removeprefix(BY_TIME).removesuffix("_percent").partition("_to_")
    return f"{int(low)} to {int(high)} %" if low.isdigit() and high.isdigit() else name.removeprefix(BY_TIME)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _number(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "", True: "yes", False: "no"}[value]
    return f"{value:,}" if isinstance(value, int) else number(value) if isinstance(value, float) else str(value)
