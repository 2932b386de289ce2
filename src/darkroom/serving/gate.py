"""The gate before `candidate`: whether the figures of a version reach what is demanded. Knows no MLflow.

What the evaluation wrote into the pipeline's folder, `EVALUATION`, is read as the JSON it is: a version may have been
made by another Darkroom, on another machine, or by hand.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from darkroom.core.artifact import read_json
from darkroom.core.errors import DarkroomError

EVALUATION = "evaluation.json"
ALIGNMENT = ("attribute_accuracy", "exact_match", "class_accuracy", "caption_retrieval")
FIDELITY = "fidelity.fid"  # speaks for models that are asked for nothing; the lower, the better
SPLIT = "test"
UNREADABLE = "unreadable"  # in place of figures


class Estimate(NamedTuple):
    """A figure and the interval around it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Thresholds:
    """What is demanded: the keys of the section `register` in params.yaml, whose docstring explains them."""

    valid_judge: bool
    above_chance: float | None
    fid_below: str | None
    vae_psnr: float | None
    not_below_candidate: bool


@dataclass(frozen=True)
class AliasHolder:
    """The version that has the alias. figures: of its evaluation; None where they cannot be had, and `why`."""

    name: str
    figures: Any
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """reasons: why a version may not have the alias; none where it may. notes: what could not be compared, and why."""

    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.reasons


def read_figures(folder: Path) -> Any:
    """What `EVALUATION` in a folder says; None where there is no such file, UNREADABLE where that is not JSON."""
    file = folder / EVALUATION
    if not file.is_file():
        return None
    try:
        return read_json(file)
    except DarkroomError:
        return UNREADABLE


def decide(
    figures: Any, thresholds: Thresholds, holder: AliasHolder | None = None, losses: Mapping[str, float] | None = None
) -> Verdict:
    """Whether a version may have the alias.

    Args:
        figures: what `EVALUATION` says of it; None: it has no such file.
        holder: the version that has the alias, if any has.
        losses: the last values of the curves of the runs that made its parts, as far as they are known.
    """
    broken = [f"{name} is {value}" for name, value in sorted((losses or {}).items()) if not math.isfinite(value)]
    if figures is None:
        return Verdict((f"it has no {EVALUATION}, so nothing is known of how well it draws", *broken))
    if not isinstance(figures, Mapping) or not isinstance(figures.get("alignment"), Mapping):
        return Verdict((f"{EVALUATION} is not as evaluate writes it", *broken))
    reasons = [*_not_finite(figures), *broken, *_below(figures, thresholds)]
    if holder is None or not thresholds.not_below_candidate:
        return Verdict(tuple(reasons))
    worse, notes = _compared(figures, holder)
    return Verdict((*reasons, *worse), notes)


def difference(new: Estimate, old: Estimate) -> Estimate:
    """new - old, with an interval made of both intervals, which may be lopsided.

    The distances from the figures to the ends of their intervals are added as standard deviations are (Newcombe 1998,
    method 10; Zou & Donner 2008). The two are taken as independent: of figures that are measured with the same captions
    and seeds the interval is too wide rather than too narrow.
    """
    value = new.value - old.value
    down = math.hypot(new.value - new.low, old.high - old.value)
    up = math.hypot(new.high - new.value, old.value - old.low)
    return Estimate(value, value - down, value + up)


def estimate(figures: Any, name: str) -> Estimate | None:
    """The figure of this name, such as "alignment.test.exact_match"; None where there is none."""
    found = _at(figures, name)
    if not isinstance(found, Mapping):
        return None
    ends = [found.get(key) for key in ("value", "low", "high")]
    return Estimate(*ends) if all(_is_number(end) for end in ends) else None  # type: ignore[arg-type]


def withheld(figures: Any, name: str) -> str | None:
    """Why a figure is withheld, itself or with what it belongs to; None where it is not."""
    segments, reasons = name.split("."), withheld_names(figures)
    paths = (".".join(segments[:n]) for n in range(len(segments), 0, -1))
    return next((str(reasons[path]) for path in paths if path in reasons), None)


def why_not_comparable(one: Any, other: Any) -> str | None:
    """Why the figures of two evaluations do not compare: they were made with other data or judges."""
    with_one, with_other = (_at(figures, "judged_with") for figures in (one, other))
    if not (isinstance(with_one, Mapping) and isinstance(with_other, Mapping) and with_one and with_other):
        return "what they were judged with is not known"
    others = [path for path in sorted({*with_one, *with_other}) if with_one.get(path) != with_other.get(path)]
    return f"judged with another {' and another '.join(others)}" if others else None


def _not_finite(figures: Mapping[str, Any]) -> list[str]:
    """Every number that is not finite, as Python's JSON has it, or null in an estimate that is not withheld."""

    def broken(values: Mapping[str, Any], of: str) -> Iterator[str]:
        for key, value in values.items():
            name = f"{of}{key}"
            if isinstance(value, Mapping):
                yield from broken(value, f"{name}.")
            elif isinstance(value, float) and not math.isfinite(value):
                yield f"{name} is {value}"
            elif value is None and key in ("value", "low", "high") and not withheld(figures, name):
                yield f"{name} is not a number"

    return list(broken(figures, ""))


def _below(figures: Mapping[str, Any], thresholds: Thresholds) -> Iterator[str]:
    """Where the figures do not reach the thresholds."""
    judge = figures.get("evaluator")
    if thresholds.valid_judge and not (isinstance(judge, Mapping) and judge.get("valid") is True):
        why = judge.get("reason") if isinstance(judge, Mapping) else None
        yield f"the judge is not valid ({why})" if why else "the judge is not valid"
    if thresholds.above_chance is not None and _is_asked(figures):
        yield from _near_chance(figures, thresholds.above_chance)
    if thresholds.fid_below is not None:
        yield from _fid_not_below(figures, thresholds.fid_below)
    if thresholds.vae_psnr is not None and figures.get("vae") != {}:
        psnr = estimate(figures, "vae.psnr")
        if psnr is None:
            yield _not_known(figures, "vae.psnr")
        elif psnr.value < thresholds.vae_psnr:
            yield f"vae.psnr {psnr.value:.4g} dB is below register.vae_psnr = {thresholds.vae_psnr:g}"


def _near_chance(figures: Mapping[str, Any], margin: float) -> Iterator[str]:
    split = f"alignment.{SPLIT}"
    names = [name for name in ALIGNMENT if _known(figures, f"{split}.{name}")]
    if not names:
        yield _not_known(figures, split)
    for name in (f"{split}.{name}" for name in names):
        found, chance = estimate(figures, name), _number(_at(figures, f"{split}.chance.{name.rpartition('.')[2]}"))
        if found is None or withheld(figures, name):
            yield _not_known(figures, name)
        elif chance is None:
            yield f"the chance of {name} is not known"
        elif found.low <= chance + margin:
            above = f" by more than register.above_chance = {margin:g}" if margin else ""
            yield f"{name} {found} is not above chance, {chance:.3g}{above}"


def _fid_not_below(figures: Mapping[str, Any], spoilt: str) -> Iterator[str]:
    found = estimate(figures, FIDELITY)
    limit = _number(_at(figures, f"fidelity.scale.fid.{spoilt}"))
    if found is None or withheld(figures, FIDELITY):
        yield _not_known(figures, FIDELITY)
    elif limit is None:
        yield f"fidelity.scale.fid.{spoilt} is not known"
    elif found.high >= limit:
        yield f"{FIDELITY} {found} is not below {limit:.3g}, that of register.fid_below = {spoilt}"


def _compared(figures: Mapping[str, Any], holder: AliasHolder) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where a version is worse than the one that has the alias; and what could not be compared."""
    if holder.figures is None:
        return (), (f"not compared with {holder.name}: {holder.why or f'it has no {EVALUATION}'}",)
    if reason := why_not_comparable(figures, holder.figures):
        return (), (f"not compared with {holder.name}: {reason}",)
    worse, apart = [], []
    names = list(_deciding(figures) | _deciding(holder.figures))
    for name in names:
        new, old = estimate(figures, name), estimate(holder.figures, name)
        if new is None or old is None or withheld(figures, name) or withheld(holder.figures, name):
            apart.append(name)
            continue
        change = difference(new, old)
        if (change.low > 0) if name == FIDELITY else (change.high < 0):
            side = "above" if name == FIDELITY else "below"
            worse.append(f"{name} {new} is {side} the {old} of {holder.name}, by {abs(change.value):.3g}")
    if len(apart) == len(names):
        return (), (f"not compared with {holder.name}: no figure is known of both",)
    notes = (f"not compared with {holder.name}: {', '.join(apart)}, not known of both",) if apart else ()
    return tuple(worse), notes


def _is_asked(figures: Mapping[str, Any]) -> bool:
    """Whether the model is asked for anything that its pictures could show."""
    return any(figures["alignment"].values()) or any(
        name.split(".")[0] == "alignment" for name in withheld_names(figures)
    )


def _deciding(figures: Any) -> dict[str, None]:
    """By which figures versions are compared, in order: alignment in every split, or fidelity where there is none."""
    alignment = _at(figures, "alignment")
    splits = alignment if isinstance(alignment, Mapping) else {}
    names = [f"alignment.{split}.{name}" for split in splits for name in ALIGNMENT]
    return dict.fromkeys([name for name in names if _known(figures, name)] or [FIDELITY])


def _known(figures: Any, name: str) -> bool:
    return _at(figures, name) is not None or name in withheld_names(figures)


def withheld_names(figures: Any) -> Mapping[str, Any]:
    """Why figures are withheld, by their names."""
    reasons = _at(figures, "withheld")
    return reasons if isinstance(reasons, Mapping) else {}


def _not_known(figures: Any, name: str) -> str:
    reason = withheld(figures, name)
    return f"{name} is withheld ({reason})" if reason else f"{name} is not known"


def _at(figures: Any, name: str) -> Any:
    for part in name.split("."):
        if not isinstance(figures, Mapping):
            return None
        figures = figures.get(part)
    return figures


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    """A bare number, or that of an estimate."""
    value = value.get("value") if isinstance(value, Mapping) else value
    return float(value) if _is_number(value) else None
