"""Recipes say what they are about and nothing else. Each test says which fault it would catch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.config.yaml_file import read

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
MOST_LINES = 60


def repeated(base: dict[str, Any], changes: dict[str, Any], path: str = "") -> Iterator[str]:
    """The differences that are none."""
    if base.get("kind") != changes.get("kind", base.get("kind")):
        return
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            yield from repeated(base[key], value, f"{path}{key}.")
        elif key in base and base[key] == value:
            yield f"{path}{key}"


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_says_what_differs_and_nothing_else(file: Path) -> None:
    """Fails if a recipe repeats its base, or grows so long that nobody sees what it is about."""
    changes = read(file)
    base = read(file.parent / "base" / f"{changes.pop('base')}.yaml")
    assert list(repeated(base, changes)) == []
    assert len(file.read_text().splitlines()) <= MOST_LINES


def test_repetitions_are_found() -> None:
    """Fails if the check above finds nothing at all."""
    base = {"a": {"kind": "x", "n": 1}, "b": {"n": 2}, "c": [1, 2]}
    same = {"a": {"n": 1}, "b": {"n": 2, "m": 3}, "c": [1, 2]}
    assert list(repeated(base, same)) == ["a.n", "b.n", "c"]
    assert list(repeated(base, {"a": {"kind": "y", "n": 1}, "b": {"n": 3}, "c": [2]})) == []


def test_there_are_two_bases_at_most_and_each_is_used() -> None:
    """Fails if bases multiply until each recipe has its own."""
    bases = {file.stem for file in (ROOT / "recipes" / "base").glob("*.yaml")}
    assert len(bases) <= 2
    assert {read(file)["base"] for file in RECIPES} == bases
