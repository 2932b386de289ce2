"""What the figures say of a model in plain words: the measured part of a model card's limits."""

from collections.abc import Mapping
from typing import Any

from darkroom.evaluation.report import beside, estimates

NEAR = 0.1  # of the way from chance to real pictures: hardly better than chance
OFTEN_WRONG = 0.7  # of that way: below it, what is drawn is often something else
ALIKE = 0.25  # of a bad picture's distance: so far from real ones is no longer near them
DISAGREE = 0.1  # share of pictures
SHARP = 0.5  # of real pictures that judges get right: below it they cannot tell a good model from a middling one


def measured(metrics: Mapping[str, Any]) -> list[str]:
    """One sentence or two for each limit that the evaluation found."""
    found = []
    if not metrics["evaluator"]["valid"]:
        found.append(
            "How good its pictures are is not known: its judges do not tell real pictures apart "
            f"({metrics['evaluator']['reason']}). Look at its pictures before use."
        )
    for name, figure in estimates({"alignment": metrics["alignment"]}).items():
        found += _of_alignment(metrics, name, figure)
    found += _of_distance(metrics)
    closeness = metrics["fidelity"].get("closer_to_training_than_test")
    if closeness and closeness["low"] > 0.5:
        found.append(
            f"It may copy: a drawn picture lies closer to the training pictures than a new real one in "
            f"{closeness['value']:.3g} of comparisons, where .5 is expected."
        )
    return found


def _of_alignment(metrics: Mapping[str, Any], name: str, figure: Mapping[str, Any]) -> list[str]:
    _, split, *path = name.split(".")
    if path == ["disagreement"]:
        if figure["low"] <= DISAGREE:
            return []
        return [f"The two judges differ on {figure['value']:.3g} of its {split} pictures: trust neither far."]
    lines = {line.of: line.value for line in beside(metrics, name)}
    if len(path) != 1 or len(lines) < 2:
        return []
    value, chance, real = figure["value"], lines["chance"], lines["real pictures"]
    reached = (value - chance) / (real - chance) if real > chance else 0.0
    figures = f"`{name}` is {value:.3g}, chance {chance:.3g}, real pictures {real:.3g}"
    if figure["low"] <= chance or reached < NEAR:
        return [f"What is asked for is drawn hardly more often than by chance: {figures}."]
    if reached < OFTEN_WRONG:
        return [f"Often it draws something else than it is asked for: {figures}."]
    if real < SHARP:
        return [
            f"How often it draws what it is asked for is not known: its judges get only {real:.3g} of real {split} "
            f"pictures right, so a middling model looks like a good one ({figures}). Look at its pictures before use."
        ]
    return []


def _of_distance(metrics: Mapping[str, Any]) -> list[str]:
    """How FID places the pictures among bad ones; where it is withheld, KID."""
    for name in ("fid", "kid"):
        figure = metrics["fidelity"].get(name)
        if figure is None:
            continue
        lines = {line.of: line.value for line in beside(metrics, f"fidelity.{name}")}
        lines.pop("real pictures")
        nearest = min(lines, key=lambda line: lines[line])
        figures = f"{name.upper()} {figure['value']:.3g}, " + ", ".join(
            f"{of} {value:.3g}" for of, value in lines.items()
        )
        if figure["value"] >= lines[nearest]:
            return [f"Its pictures are as far from real ones as {nearest}, or farther: {figures}."]
        if figure["value"] >= ALIKE * lines[nearest]:
            return [f"Its pictures are well apart from real ones, on the way to {nearest}: {figures}."]
        return []
    return ["How far its pictures are from real ones is not known: no distance could be measured."]
