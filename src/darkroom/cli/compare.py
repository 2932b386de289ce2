"""`darkroom compare`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darkroom.cli.columns import aligned
from darkroom.cli.options import MAX_PICTURES, checked_path
from darkroom.core.errors import DarkroomError
from darkroom.core.text import check_text, plural, printable, read_text

if TYPE_CHECKING:
    from PIL import Image

    from darkroom.inference.folder import PipelineInfo

SHEET = Path("compare.png")
SEEDS = "0,1"
MOST_PROMPTS = 6  # where none are given
MOST_NAMED = 4  # prompts in a message
LABEL = 10  # letters of a folder's name above its pictures
NOT_ASKED = (226, 224, 218)  # the colour in place of a picture whose prompt the pipeline does not take
LEFT_OUT = {"evaluator", "judges", "real", "scale", "disagreement"}  # figures about the judge, not about the pictures


@dataclass(frozen=True)
class Side:
    """One of the two pipelines: letter A or B, and the label above its pictures."""

    letter: str
    label: str
    folder: Path
    info: "PipelineInfo"
    figures: Any

    def asked(self, prompt: str) -> str | None:
        """What it takes for `prompt`; None where it does not take that."""
        condition = self.info.condition
        if condition.of_classes and prompt not in condition.classes:
            return None
        return prompt if condition.takes_prompts else ""

    def prompts(self) -> list[str]:
        """Prompts that show what it does: its classes, or the one on its model card."""
        from darkroom.evaluation.card import read_card

        if self.info.condition.of_classes:
            return list(self.info.condition.classes)[:MOST_PROMPTS]
        try:
            return [read_card(self.folder).example] if self.info.condition.of_text else []
        except DarkroomError:
            return []


def compare(
    a: Annotated[Path, typer.Argument(help="Folder of a pipeline.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Folder of another.", show_default=False)],
    prompts: Annotated[
        list[str] | None,
        typer.Argument(help="What both draw. [default: their classes, or the prompts of their model cards]"),
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="File of prompts, one a line, in place of PROMPTS.", show_default=False)
    ] = None,
    seeds: Annotated[str, typer.Option(help="Of the pictures of each prompt, separated by commas.")] = SEEDS,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = SHEET,
) -> None:
    """Draw the same prompts with the same seeds from two pipelines, side by side, and print what differs.

    The sheet has a row for each prompt, and for each seed the picture of A beside that of B. Printed are the figures of
    both, with the difference B - A and its 95 % interval if they were judged with the same data and judges, and the
    parameters in which the two differ.

    dvc get fetches the pipeline of an earlier commit.

    \b
    dvc get . artifacts/pipeline --rev HEAD~1 --out before
    darkroom compare before artifacts/pipeline
    darkroom compare before artifacts/pipeline "a small red circle" "a large blue square" --seeds 0,1,2,3
    darkroom compare before artifacts/pipeline --prompts-file captions.txt --out captions.png
    """
    checked_path("--out", out, ".png")
    numbers, asked = _seeds(seeds), _prompts(prompts or [], prompts_file)
    from darkroom.core.tensors import save_png
    from darkroom.inference.folder import PipelineInfo
    from darkroom.serving.gate import read_figures
    from darkroom.view.sheet import Plate, table

    labels = _labels(a, b)
    sides = [
        Side(letter, label, folder, PipelineInfo.read(folder), read_figures(folder))
        for letter, label, folder in zip("AB", labels, (a, b), strict=True)
    ]
    wanted = asked or _usual(sides)
    _check(wanted, numbers, sides)
    print(*(f"{side.letter} = {printable(side.folder)}" for side in sides), sep="\n")
    for line in _refusals(wanted, sides):
        print(line)
    drawn = [_draw(side, wanted, numbers) for side in sides]
    rows = [
        Plate([picture for pair in zip(*(of[i] for of in drawn), strict=True) for picture in pair], prompt or "–")
        for i, prompt in enumerate(wanted)
    ]
    save_png(out, table([f"{side.letter} {side.label} · seed {seed}" for seed in numbers for side in sides], rows))
    print(out, *_figures(sides), *_parameters(*sides), sep="\n")


def _seeds(text: str) -> list[int]:
    try:
        found = [int(one) for one in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise DarkroomError(f"--seeds = {text!r}: give whole numbers separated by commas, such as {SEEDS}")
    return found


def _prompts(prompts: Sequence[str], file: Path | None) -> list[str]:
    """The prompts of the arguments or of the file; [] without both."""
    if prompts and file is not None:
        raise DarkroomError("prompts: give either PROMPTS or --prompts-file FILE")
    if file is None:
        return [check_text(prompt, "prompt") for prompt in dict.fromkeys(prompts)]
    found = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    if not found:
        raise DarkroomError(f"--prompts-file = {file}: holds no prompt; write one a line")
    return list(dict.fromkeys(found))


def _usual(sides: Sequence[Side]) -> list[str]:
    if not any(side.info.condition.takes_prompts for side in sides):
        return [""]
    found = [*dict.fromkeys(prompt for side in sides for prompt in side.prompts())][: 2 * MOST_PROMPTS]
    if not found:
        raise DarkroomError(f"{sides[0].folder}: no model card says what to ask for; give prompts")
    return found


def _check(prompts: Sequence[str], seeds: Sequence[int], sides: Sequence[Side]) -> None:
    """Refuse what is not worth drawing, before anything is drawn."""
    if (n := len(prompts) * len(seeds)) > MAX_PICTURES:
        raise DarkroomError(
            f"{plural(len(prompts), 'prompt')} with {plural(len(seeds), 'seed')}: {n} pictures are more "
            f"than {MAX_PICTURES}; give fewer"
        )
    for prompt in prompts:
        if all(side.asked(prompt) is None for side in sides):
            classes = "; ".join(f"{side.letter} has {', '.join(side.info.condition.classes)}" for side in sides)
            raise DarkroomError(f"prompt {prompt!r}: neither can be asked for it; the classes: {classes}")


def _refusals(prompts: Sequence[str], sides: Sequence[Side]) -> Iterator[str]:
    """The prompts that one of the two does not take."""
    for side in sides:
        if not side.info.condition.takes_prompts:
            if any(prompts):
                yield f"{side.letter} takes no prompts: its pictures depend on the seeds alone"
            continue
        others = [prompt for prompt in prompts if side.asked(prompt) is None]
        if others:
            more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
            classes = ", ".join(side.info.condition.classes)
            yield (
                f"{side.letter} cannot be asked for {', '.join(map(repr, others[:MOST_NAMED]))}{more}: "
                f"left empty; its classes: {classes}"
            )


def _draw(side: Side, prompts: Sequence[str], seeds: Sequence[int]) -> "list[list[Image.Image]]":
    """For each prompt a picture of each seed, or an empty one."""
    from PIL import Image

    from darkroom import Pipeline
    from darkroom.core import device
    from darkroom.core.progress import Progress
    from darkroom.inference.defaults import BATCH_SIZE

    model = Pipeline.from_pretrained(side.folder, device=device.start())
    askable = [(i, asked) for i, prompt in enumerate(prompts) if (asked := side.asked(prompt)) is not None]
    size = (model.info.image_size,) * 2
    drawn = [[Image.new("RGB", size, NOT_ASKED) for _ in seeds] for _ in prompts]
    if not askable:
        return drawn
    batches = -(-len(askable) * len(seeds) // BATCH_SIZE)
    with Progress(batches * model.info.sampling.num_inference_steps, f"draw {side.letter}") as bar:
        images = model.text_to_image(
            [asked for _, asked in askable for _ in seeds],
            seeds=[seed for _ in askable for seed in seeds],
            on_step=lambda *_: bar.update(),
        ).images
    for row, (i, _) in enumerate(askable):
        drawn[i] = images[row * len(seeds) : (row + 1) * len(seeds)]
    return drawn


def _figures(sides: Sequence[Side]) -> Iterator[str]:
    """A table of the figures of both, with the difference where they compare; then why figures are withheld."""
    from darkroom.evaluation.report import estimates
    from darkroom.serving.gate import EVALUATION, difference, estimate, why_not_comparable, withheld, withheld_names

    for side in sides:
        if not isinstance(side.figures, Mapping):
            what = "no" if side.figures is None else "a damaged"
            yield f"{side.letter} has {what} {EVALUATION}: its figures are unknown"
    known = [side.figures for side in sides if isinstance(side.figures, Mapping)]
    apart = why_not_comparable(*known) if len(known) == len(sides) else None
    if apart:
        yield f"The figures do not compare: {apart}"
    compares = len(known) == len(sides) and not apart
    names = dict.fromkeys(name for figures in known for name in estimates(figures))
    names |= dict.fromkeys(name for figures in known for name in withheld_names(figures))
    table, reasons = [["", *(side.letter for side in sides), "B - A" if compares else ""]], list[str]()
    for name in (name for name in names if not LEFT_OUT & set(name.split("."))):
        cells, values = [], []
        for side in sides:
            reason, found = withheld(side.figures, name), estimate(side.figures, name)
            if reason:
                reasons.append(f"{side.letter} {name} is withheld: {reason}")
            values.append(None if reason else found)
            cells.append("withheld" if reason else str(found) if found else "–")
        old, new = values
        change = difference(new, old) if new and old and not apart else None
        clear = " *" if change and (change.low > 0 or change.high < 0) else ""
        table.append([name, *cells, f"{change}{clear}" if change else ""])
    if len(table) > 1:
        yield from aligned(table)
        if any(line[-1].endswith("*") for line in table):
            yield "* the interval of the difference excludes 0"
    yield from reasons


def _parameters(a: Side, b: Side) -> Iterator[str]:
    """The parameters in which the two differ: of the runs that made them, if both are known, and of their folders."""
    of_a, of_b = _folder_parameters(a.folder), _folder_parameters(b.folder)
    runs = _run_parameters(a.folder, b.folder)
    if runs is None:
        yield "The runs that made them are not both known here: only the parameters in their folders are compared"
    else:
        of_a, of_b = {**of_a, **runs[0]}, {**of_b, **runs[1]}
    names = [name for name in sorted({*of_a, *of_b}) if of_a.get(name) != of_b.get(name)]
    if not names:
        yield "No parameter differs"
        return
    yield from aligned([["", "A", "B"], *([name, _cell(of_a, name), _cell(of_b, name)] for name in names)])


def _folder_parameters(folder: Path) -> dict[str, Any]:
    """The parameters in a pipeline's folder: pipeline.json, and the configuration of each network."""
    from darkroom.core.artifact import CONFIG, PIPELINE, read_json
    from darkroom.tracking.run import flat

    found = flat(read_json(folder / PIPELINE))
    for file in sorted(folder.glob(f"*/{CONFIG}")):
        found |= flat({file.parent.name: read_json(file)})
    return found


def _run_parameters(*folders: Path) -> list[Mapping[str, Any]] | None:
    """The parameters of the runs that made the pipelines; None where one is unknown."""
    from darkroom.core.artifact import model_hash
    from darkroom.serving.registry import MADE_AT
    from darkroom.tracking.address import is_on
    from darkroom.tracking.query import RunQuery, store_exists

    if not (is_on() and store_exists()):
        return None
    try:
        runs = [RunQuery().wrote(MADE_AT, model_hash(folder)) for folder in folders]
    except DarkroomError:
        return None
    found = [run.params for run in runs if run is not None]
    return list(found) if len(found) == len(folders) else None


def _cell(values: Mapping[str, Any], name: str) -> str:
    text = printable(values[name]) if name in values else "–"
    return text if len(text) <= 2 * LABEL else f"{text[: 2 * LABEL - 1]}…"


def _labels(a: Path, b: Path) -> tuple[str, str]:
    """The last names in which the paths of two folders differ."""
    names = zip(reversed(a.resolve().parts), reversed(b.resolve().parts), strict=False)
    return next(((_short(one), _short(other)) for one, other in names if one != other), ("", ""))


def _short(name: str) -> str:
    text = printable(name)
    return text if len(text) <= LABEL else f"{text[: LABEL - 1]}…"
