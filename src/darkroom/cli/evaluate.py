"""`darkroom evaluate`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from darkroom.cli.columns import aligned
from darkroom.cli.names import check_names
from darkroom.cli.options import (
    MAX_SEED,
    SamplingOptions,
    with_options,
)
from darkroom.config.paths import EVALUATOR, PREPARED
from darkroom.core.errors import DarkroomError
from darkroom.core.text import plural, printable

if TYPE_CHECKING:
    from darkroom.data.prepared import Prepared
    from darkroom.evaluation.scoring import Panel, Scored
    from darkroom.evaluation.subject import Subject

OUT = Path("evaluations")
FIGURES, SAMPLES, NEIGHBOURS = "evaluation.json", "samples.png", "neighbours.png"
TRAINING = "train"
ON_SHEET, WITH_NEIGHBOURS = 24, 10  # pictures
DISTANCES = ("real pictures", "blurred pictures", "mean colours", "noise")


@dataclass(frozen=True)
class EvaluateOptions(SamplingOptions):
    """What `darkroom evaluate` takes; sampling None: the pipeline's own."""

    data: Annotated[Path, typer.Option(help="Folder of prepared data, the real pictures.")] = PREPARED
    split: Annotated[str, typer.Option(help="Whose captions are drawn, and whose pictures are compared with.")] = "test"
    judges: Annotated[
        Path | None,
        typer.Option(help=f"Folder of judges. [default: {EVALUATOR}, if they can read the data]", show_default=False),
    ] = None
    n: Annotated[
        int | None,
        typer.Option(
            "--n", "-n", min=1, help="How many pictures, chosen at random. [default: 500 drawn; all of a folder]"
        ),
    ] = None
    seed: Annotated[
        int,
        typer.Option(min=0, max=MAX_SEED, help="Of the choice and of the first picture; the next have seed + 1, …"),
    ] = 0
    resize: Annotated[
        Literal["crop", "pad", "squash"], typer.Option(help="How pictures of a folder get the size of the data.")
    ] = "crop"
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. [default: evaluations/, named after TARGET]")
    ] = None


@with_options
def evaluate(
    options: EvaluateOptions,
    target: Annotated[
        Path, typer.Argument(help="Folder of a pipeline, of ours or of diffusers, or of pictures.", show_default=False)
    ],
) -> None:
    """Measure any pipeline, or any folder of pictures, against any prepared data, and say what could not be judged.

    A pipeline (darkroom's, or a text-to-image folder of diffusers) draws captions of --split. Pictures of a folder are
    taken as they are; captions beside them (metadata.jsonl, .csv or .tsv, or a .txt for each) say what they were to
    show. Each picture is compared with a real one of the split.

    Printed is each figure with its 95 % interval and what to read it against: chance, real pictures, and deliberately
    bad ones. Alignment says whether pictures show what was asked for, fidelity how far they are from real ones,
    memorisation whether they are copies of training pictures. A list at the end says what could not be judged, or only
    with a reservation, and why. Judges are the two networks of the stage train_evaluator; without them little is left.

    Written to --out are evaluation.json, samples.png (each picture beside a real one; ✓ ✗: what both judges say) and
    neighbours.png (the pictures nearest to training pictures, beside these).

    \b
    darkroom evaluate artifacts/pipeline
    darkroom evaluate artifacts/pipeline --split novel -n 200 --sampler ddim --steps 50
    darkroom evaluate ../stable-diffusion-finetuned --data data/prepared --out evaluations/theirs
    darkroom evaluate drawn-by-another-tool/ --judges artifacts/evaluator --resize pad
    """
    out = options.out or OUT / (target.resolve().name or "root")
    check_names("--out", [out / name for name in (FIGURES, SAMPLES, NEIGHBOURS)])
    from darkroom.core import device
    from darkroom.core.artifact import write_json
    from darkroom.data.prepared import Prepared
    from darkroom.evaluation.scoring import score
    from darkroom.evaluation.subject import Choice, is_pipeline

    pipeline = is_pipeline(target)
    changes = options.changes
    _check(target, out, options, changes, pipeline)
    here = device.start()
    data = Prepared.open(options.data)
    panel = _panel(options.judges, data, here)
    subject = _subject(target, pipeline, data, options, Choice(options.n, options.seed, changes, options.resize))
    scored = score(subject, panel, data, options.split, options.seed)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / FIGURES, scored.metrics)
    files = [out / FIGURES, *_sheets(subject, scored, data, options.seed, out)]
    what = "drawn" if pipeline else "read"
    print(
        f"{printable(target)}: {plural(len(subject.drawn), 'picture')} {what}, against {printable(data.root)}, split "
        f"{options.split}",
        *_table(scored.metrics),
        *_listed(scored),
        "",
        *files,
        sep="\n",
    )


def _check(target: Path, out: Path, o: EvaluateOptions, changes: Mapping[str, Any], pipeline: bool) -> None:
    """Refuse options that would do nothing, and an --out that later evaluations would take for pictures."""
    if changes and not pipeline:
        options = ", ".join(sorted(changes))
        raise DarkroomError(
            f"{printable(target)}: is a folder of pictures, for which nothing is drawn; leave out {options}"
        )
    if o.split == TRAINING:
        raise DarkroomError(f"--split = {TRAINING}: figures compare with held-out pictures; name another split")
    for name, folder in (("TARGET", target), ("--data", o.data)):
        if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            raise DarkroomError(f"--out = {printable(out)}: lies in {name}, {printable(folder)}; give another folder")


def _panel(judges: Path | None, data: "Prepared", device: Any) -> "Panel":
    """The judges that are named, or else the project's, where they can read the data."""
    from darkroom.evaluation.scoring import Panel, UnfitJudgesError, fit_judges

    try:
        return fit_judges(EVALUATOR if judges is None else judges, data, device)
    except UnfitJudgesError as error:
        if judges is not None:
            raise DarkroomError(f"--judges = {error}") from None
        return Panel((), EVALUATOR, str(error))


def _subject(target: Path, pipeline: bool, data: "Prepared", o: EvaluateOptions, wanted: Any) -> "Subject":
    from darkroom.evaluation.subject import PipelineSubject, folder_subject

    try:
        split = data.split(o.split)
    except DarkroomError as error:
        raise DarkroomError(f"--split = {printable(o.split)}: {error}") from None
    data.split(TRAINING)  # before anything is drawn
    if pipeline:
        return PipelineSubject(target, wanted).draw(data, split)
    return folder_subject(target, wanted, data, split)


def _sheets(subject: "Subject", scored: "Scored", data: "Prepared", seed: int, out: Path) -> Iterator[Path]:
    """Write pictures beside real ones, and the likeliest copies beside the training pictures that they are near."""
    import torch

    from darkroom.core.rng import generator
    from darkroom.evaluation.memorisation import show_neighbours
    from darkroom.evaluation.pictures import samples

    drawn = subject.drawn
    order = torch.randperm(len(drawn), generator=generator(seed, "sheet"))[:ON_SHEET].sort().values
    beside = "the real picture with this caption" if bool(subject.matched[order].all()) else "a real picture"
    samples(drawn.take(order), [scored.verdicts[i] for i in order.tolist()], out / SAMPLES, beside)
    yield out / SAMPLES
    if scored.neighbours is not None:
        show_neighbours(drawn, scored.neighbours, data.split(TRAINING), WITH_NEIGHBOURS, out / NEIGHBOURS)
        yield out / NEIGHBOURS
    else:
        (out / NEIGHBOURS).unlink(missing_ok=True)  # of an earlier evaluation


def _table(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Every figure, its interval, and what it is read against."""
    from darkroom.evaluation.fidelity import CLOSENESS
    from darkroom.evaluation.report import beside, estimates

    for group, columns in (
        ("alignment", ("chance", "real pictures")),
        ("fidelity", DISTANCES),
        ("memorisation", ("real pictures",)),
    ):
        rows = []
        for name, figure in estimates({group: metrics[group]}).items():
            if group == "memorisation":
                lines = {"real pictures": metrics[group]["real"][name.partition(".")[2]]}
            elif name == f"fidelity.{CLOSENESS}":
                lines = {"real pictures": 0.5}  # what it is by construction
            else:
                lines = {line.of: line.value for line in beside(metrics, name)}
            rows.append([f"  {name.partition('.')[2]}", *_cells(figure), *(_number(lines.get(of)) for of in columns)])
        if rows:
            yield ""
            yield from aligned([[group, "value", "95 % interval", "n", *columns], *rows])
    counts = metrics["memorisation"]
    yield ""
    yield (
        f"equal to the pixel: {counts['equal_to_training']} to a training picture, {counts['equal_to_another']} to "
        "another of them"
    )


def _cells(figure: Mapping[str, Any]) -> Sequence[str]:
    interval = f"[{_number(figure['low'])}, {_number(figure['high'])}]"
    return _number(figure["value"]), interval, f"{figure['n']:,}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _listed(scored: "Scored") -> Iterator[str]:
    """What was not judged, or with a reservation."""
    yield ""
    if not scored.caveats:
        yield "Everything was judged."
        return
    yield "Not judged, or with a reservation:"
    for caveat in scored.caveats:
        yield f"- {caveat.about}: {caveat.said}"
