"""reports/evaluation/metrics.json: how its figures are written and found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

EVALUATION = "evaluation.json"  # the same beside a pipeline, in its folder
DIGITS = 6  # significant, of figures in reports
OF = {"real": "real pictures", "noise": "noise", "mean_colour": "mean colours", "blurred": "blurred pictures"}
ESTIMATE = {"value", "low", "high", "n"}
PARTS = ("by_", "judges")  # how the names of groups begin whose figures are parts of others


def as_json(value: Any) -> Any:
    """`Estimate`s as {value, low, high, n}; numbers to 6 significant digits, which every machine writes alike."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value))
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def estimates(metrics: Mapping[str, Any], of: str = "") -> dict[str, Mapping[str, Any]]:
    """All {value, low, high, n}, by their path: {"alignment.test.exact_match": …}; without single attributes and
    single judges."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping) and not name.startswith(PARTS):
            if set(value) == ESTIMATE:
                found[of + name] = value
            else:
                found |= estimates(value, f"{of}{name}.")
    return found


@dataclass(frozen=True)
class Measured:
    """figures: as metrics.json holds them. withheld: {path of a figure: why it is not among them}."""

    figures: dict[str, Any]
    withheld: dict[str, str]


@dataclass(frozen=True)
class Line:
    """A value to compare a figure with: what it is of, and its path in metrics.json."""

    of: str
    path: str
    value: float


def beside(metrics: Mapping[str, Any], name: str) -> list[Line]:
    """What to compare the figure called `name` with.

    Of alignment: the chance level and real pictures of that split, each read by the judge that has not seen it. Of a
    distance: real pictures, and deliberately bad ones.
    """
    group, *path = name.split(".")
    if group == "fidelity":
        lines = metrics["fidelity"].get("scale", {}).get(path[-1], {})
        return [Line(OF[line], f"fidelity.scale.{path[-1]}.{line}", value) for line, value in lines.items()]
    if group != "alignment":
        return []
    split, figure = path[0], path[-1]
    found = []
    chance = metrics["alignment"][split].get("chance", {})
    if figure in chance:
        found.append(Line("chance", f"alignment.{split}.chance.{figure}", chance[figure]))
    real = metrics["evaluator"]["real"].get(split, {})
    if figure in real:
        found.append(Line(OF["real"], f"evaluator.real.{split}.{figure}", real[figure]["value"]))
    return found


def withheld(metrics: Mapping[str, Any]) -> dict[str, list[str]]:
    """Reason -> the names of the figures that are withheld for it."""
    reasons: dict[str, list[str]] = {}
    for name, reason in metrics["withheld"].items():
        reasons.setdefault(reason, []).append(name)
    return reasons


def summary(metrics: Mapping[str, Any]) -> dict[str, float | str]:
    """The values of all `estimates`, each followed by what it is to be read against, and what is withheld, with why."""
    found: dict[str, float | str] = {}
    for name, figure in estimates(metrics).items():
        found.setdefault(name, figure["value"])
        for line in beside(metrics, name):
            found.setdefault(line.path, line.value)
    return found | {f"withheld: {', '.join(names)}": reason for reason, names in withheld(metrics).items()}
