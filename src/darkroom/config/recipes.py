"""Recipes: complete params files under names, in the project's folder."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from darkroom.config.params import PARAMS_FILE, read
from darkroom.core.errors import DarkroomError

RECIPES = Path("recipes")
MOST_SHOWN = 12  # of the values that a recipe replaces


def names() -> list[str]:
    """The recipes of the project, sorted.

    Raises:
        DarkroomError: the current folder is not the project's.
    """
    found = sorted(file.stem for file in RECIPES.glob("*.yaml"))
    if not found:
        raise DarkroomError(f"{RECIPES}: no recipes here; run darkroom from the project's folder")
    return found


def file_of(name: str) -> Path:
    """The file of a recipe.

    Raises:
        DarkroomError: there is none of this name; the nearest one is named.
    """
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise DarkroomError(f"recipe {name!r}: no such recipe; {remedy}")
    return RECIPES / f"{name}.yaml"


def about(name: str) -> str:
    """The recipe's first comment line."""
    lines = file_of(name).read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")


def use(name: str) -> str:
    """Write a recipe to params.yaml; returns what happened, naming every value of the user's own that is gone."""
    return put(file_of(name).read_bytes(), f"the recipe {name}")


def put(content: bytes, what: str) -> str:
    """Write params.yaml; what: the content in words. Returns what happened, as `use` does."""
    if PARAMS_FILE.exists() and PARAMS_FILE.read_bytes() == content:
        return f"{PARAMS_FILE}: is {what}, as before"
    before = _described()
    beside = PARAMS_FILE.with_name(f".{PARAMS_FILE.name}.partial")
    beside.write_bytes(content)
    beside.replace(PARAMS_FILE)
    return f"{PARAMS_FILE}: is now {what}" + (f"; it was {before}" if before else "")


def _described() -> str:
    """What params.yaml holds, told as the recipe it is nearest to and the values in which it differs."""
    if not PARAMS_FILE.exists():
        return ""
    try:
        values = dict(_flat(read(PARAMS_FILE)))
    except DarkroomError as error:
        return f"not readable ({error})"
    recipes = {name: dict(_flat(read(file_of(name)))) for name in names()}
    nearest = min(recipes, key=lambda name: len(_differences(values, recipes[name])))
    changes = _differences(values, recipes[nearest])
    if not changes:
        return f"the recipe {nearest}"
    more = f" and {len(changes) - MOST_SHOWN} more" if len(changes) > MOST_SHOWN else ""
    return f"the recipe {nearest} with {', '.join(changes[:MOST_SHOWN])}{more}"


def _flat(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """{a: {b: 1}} -> ("a.b", 1)."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, values


def _differences(values: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    changed = [f"{key} = {value!r}" for key, value in values.items() if key not in recipe or recipe[key] != value]
    return changed + [f"no {key}" for key in recipe if key not in values]
