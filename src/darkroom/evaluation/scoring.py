"""Any pictures measured against any prepared data: all that can be judged, and a list of what cannot, with why."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.core.artifact import PROVENANCE, content_hash, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.data.prepared import Prepared, PreparedSplit
from darkroom.evaluation.caveats import Caveat
from darkroom.evaluation.drawing import Drawn
from darkroom.evaluation.estimates import Estimate, TooFewError
from darkroom.evaluation.judge import CANDIDATES, Judge, read_judges
from darkroom.evaluation.judging import Judges, Validity, normalised
from darkroom.evaluation.memorisation import Neighbours, duplicates, memorisation
from darkroom.evaluation.report import Measured, as_json, withheld
from darkroom.evaluation.subject import NOTHING_ASKED, PICTURES, Subject

RESAMPLES = 1000  # of each bootstrap
PROVING = "test"  # the split on whose pictures judges show what they can read


class UnfitJudgesError(DarkroomError):
    """These judges cannot read pictures of this data."""


@dataclass(frozen=True)
class Panel:
    """The judges, none where nothing can be judged by any; reason: why there are none. folder: where they lie."""

    judges: Sequence[Judge]
    folder: Path
    reason: str = ""


@dataclass(frozen=True)
class Scored:
    """metrics: for a file, see `as_json`. caveats: what was not judged, or with a reservation.

    verdicts: of each picture, as `Judges.verdicts` gives them. neighbours: None where they are not known.
    """

    metrics: dict[str, Any]
    caveats: list[Caveat]
    verdicts: list[bool | None]
    neighbours: Neighbours | None


def fit_judges(folder: Path, data: Prepared, device: torch.device) -> Panel:
    """The judges in a folder, for this data.

    Raises:
        UnfitJudgesError: there are none, or they were made for pictures or labels of another kind.
    """
    if not folder.is_dir():
        raise UnfitJudgesError(
            f"{printable(folder)}: no judges are there; train some on the data (dvc repro train_evaluator), or name "
            "others with --judges"
        )
    judges, info = read_judges(folder, device), data.info
    one, here = judges[0], printable(folder)
    remedy = f"train judges on {printable(data.root)} (dvc repro train_evaluator), or name others with --judges"
    if (channels := one.network.sizes.in_channels) != info.channels:
        raise UnfitJudgesError(
            f"{here}: its judges read pictures of {channels} channels, and {printable(data.root)} has {info.channels}; "
            f"{remedy}"
        )
    if one.kind == "classifier" and one.heads != info.heads:
        theirs, ours = (", ".join(head.name for head in heads) or "none" for heads in (one.heads, info.heads))
        raise UnfitJudgesError(
            f"{here}: its judges read other labels ({theirs}) than {printable(data.root)} has ({ours}), or other "
            f"classes of these; {remedy}"
        )
    if one.kind == "towers" and not info.captions:
        raise UnfitJudgesError(
            f"{here}: its judges compare pictures with captions, and {printable(data.root)} has none; {remedy}"
        )
    if PROVING not in info.splits:
        raise UnfitJudgesError(
            f"{printable(data.root)}: has no split {PROVING}, on which judges show what they can read; prepare it "
            "with one (prepare_data.test_fraction)"
        )
    return Panel(judges, folder)


def score(subject: Subject, panel: Panel, data: Prepared, split: str, seed: int) -> Scored:
    """All figures of the pictures of `subject`, and what of them could not be had."""
    drawn, train = subject.drawn, data.split("train")
    judges = Judges(panel.judges, seed, RESAMPLES)
    splits = {name: data.split(name) for name in dict.fromkeys((PROVING, split)) if name in data.info.splits}
    validity = judges.validity(splits) if panel.judges else Validity(False, panel.reason)
    readable = _readable(subject, panel)
    asked = drawn.take(readable)
    alignment, fidelity, memory = (Measured({}, {}) for _ in range(3))
    verdicts: list[bool | None] = [None] * len(drawn)
    neighbours = None
    caveats = [*subject.caveats, *_of_panel(panel, data)]
    if panel.judges and len(readable):
        captions = set(map(normalised, train.captions)) if data.info.captions else set()
        alignment = judges.alignment(asked, split, captions, validity)
        read = dict(zip(readable.tolist(), judges.verdicts(asked, validity), strict=True))
        verdicts = [read.get(i) for i in range(len(drawn))]
        caveats += _of_alignment(panel, alignment, len(readable), validity)
    if panel.judges:
        fidelity = _enough(judges.fidelity(drawn, train, validity), panel, drawn)
    if validity.valid:
        memory, neighbours = _memorisation(panel, drawn, train, seed)
    metrics: dict[str, Any] = {
        "subject": {"kind": subject.kind, "pictures": len(drawn), "asked": len(readable)},
        "split": split,
        "alignment": {split: alignment.figures},
        "evaluator": asdict(validity),
        "fidelity": fidelity.figures,
        "memorisation": {**memory.figures, **duplicates(drawn.pictures, train)},
        "withheld": {**alignment.withheld, **fidelity.withheld, **memory.withheld},
        "judged_with": _judged_with(panel, data),
        **({"sampling": subject.sampling} if subject.sampling else {}),
    }
    more = "; more pictures may help" if len(drawn) < PICTURES else ""
    for reason, names in withheld(metrics).items():
        few = more if all(name.startswith("fidelity.") for name in names) and "give" not in reason else ""
        caveats.append(Caveat(", ".join(names), reason + few))
    if not panel.judges:
        caveats.append(Caveat("alignment, fidelity, memorisation", panel.reason))
    metrics["caveats"] = [asdict(caveat) for caveat in caveats]
    return Scored(as_json(metrics), caveats, verdicts, neighbours)


def _readable(subject: Subject, panel: Panel) -> Tensor:
    """The pictures of which something is asked that these judges read: (n,) int64."""
    if not panel.judges or panel.judges[0].kind != "classifier":
        return subject.asked
    asked = subject.drawn.asked
    labelled = (asked.mentioned & (asked.labels >= 0)).any(dim=1)
    return subject.asked[labelled[subject.asked]]


def _of_panel(panel: Panel, data: Prepared) -> list[Caveat]:
    """A reservation where judges were trained on other data than these."""
    if not panel.judges:
        return []
    record = panel.folder / PROVENANCE
    inputs = read_json(record)["inputs"].values() if record.is_file() else ()
    if content_hash(data.root) in inputs:
        return []
    return [
        Caveat(
            "judges",
            f"{printable(panel.folder)} was trained on other data than {printable(data.root)}; they count as far as "
            f"they read real pictures of its split {PROVING}, which is measured",
        )
    ]


def _of_alignment(panel: Panel, alignment: Measured, n: int, validity: Validity) -> list[Caveat]:
    kind = panel.judges[0].kind
    if kind == "selfsupervised":
        return [Caveat(NOTHING_ASKED, "the judges read neither labels nor captions, for they were trained without")]
    if kind == "towers" and alignment.figures and validity.real and n < CANDIDATES:
        said = f"a picture's caption is found among {n} here, and among {CANDIDATES} for real pictures, which is harder"
        return [Caveat("caption_retrieval", f"{said}; give {CANDIDATES} pictures or more")]
    return []


def _enough(fidelity: Measured, panel: Panel, drawn: Drawn) -> Measured:
    """Without FID where a judge has no more pictures than features: the covariance of so few is singular."""
    fid = fidelity.figures.get("fid")
    if not isinstance(fid, Estimate):
        return fidelity
    width = panel.judges[0].features(drawn.real[:1]).shape[1]
    if fid.n > width:
        return fidelity
    figures = {name: figure for name, figure in fidelity.figures.items() if name != "fid"}
    figures["judges"] = {
        of: {name: figure for name, figure in each.items() if name != "fid"}
        for of, each in fidelity.figures["judges"].items()
    }
    reason = (
        f"a judge compares {fid.n} pictures in {width} features, and their covariance needs more pictures than "
        f"features; give {2 * width + width // 4} or more"
    )
    return replace(fidelity, figures=figures, withheld={**fidelity.withheld, "fidelity.fid": reason})


def _memorisation(panel: Panel, drawn: Drawn, train: PreparedSplit, seed: int) -> tuple[Measured, Neighbours | None]:
    try:
        figures, neighbours = memorisation(panel.judges, drawn, train, seed, RESAMPLES)
    except TooFewError as error:
        return Measured({}, {"memorisation": str(error)}), None
    return Measured(figures, {}), neighbours


def _judged_with(panel: Panel, data: Prepared) -> dict[str, str]:
    """What figures of two evaluations have to have in common to compare."""
    folders = [data.root, *([panel.folder] if panel.judges else [])]
    return {folder.as_posix(): content_hash(folder) for folder in folders}
