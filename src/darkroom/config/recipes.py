"""Recipes: params files under names, the project's or the installation's. Each states a base and its differences."""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from darkroom.config.faults import short
from darkroom.config.merging import complete_text
from darkroom.config.params import PARAMS_FILE, read
from darkroom.config.shipped import RECIPES, recipes_folder
from darkroom.config.stage_spec import PIPELINE
from darkroom.core.artifact import atomic_path
from darkroom.core.errors import DarkroomError

MOST_SHOWN = 12  # of the values that a recipe replaces
ABSENT = "-"


def names() -> list[str]:
    """The recipes there are, sorted; see `recipes_folder`."""
    return sorted(file.stem for file in recipes_folder().glob("*.yaml"))


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
    return recipes_folder() / f"{name}.yaml"


def complete(name: str) -> str:
    """The complete params file that a recipe stands for, comments included."""
    return complete_text(file_of(name))


def about(name: str) -> str:
    """The recipe's first comment line."""
    lines = file_of(name).read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")


def use(name: str) -> str:
    """Write a recipe to params.yaml; returns what happened, naming every value of the user's own that is gone."""
    return put(complete(name), f"the recipe {name}")


def put(text: str, what: str) -> str:
    """Write params.yaml; what: the content in words. Returns what happened, as `use` does.

    Raises:
        DarkroomError: the current folder is not a project's.
    """
    if not (PIPELINE.is_file() or RECIPES.is_dir()):
        raise DarkroomError(f"{PIPELINE}: no such file here; go to the project's folder, or make one: darkroom new DIR")
    content = text.encode()
    if PARAMS_FILE.exists() and PARAMS_FILE.read_bytes() == content:
        return f"{PARAMS_FILE}: is {what}, as before"
    before = _described()
    with atomic_path(PARAMS_FILE) as beside:
        beside.write_bytes(content)
    return f"{PARAMS_FILE}: is now {what}" + (f"; it was {before}" if before else "")


def difference(name: str, other: str | None = None) -> list[str]:
    """The keys in which a recipe differs from another one or, without one, from params.yaml; as lines of a table."""
    theirs = other or str(PARAMS_FILE)
    changes = changed(read(file_of(name)), read(file_of(other) if other else PARAMS_FILE))
    if not changes:
        return [f"{name} and {theirs} say the same"]
    rows = [("", name, theirs), *((key, _plain(mine), _plain(value)) for key, (mine, value) in changes.items())]
    first, second = (max(len(row[column]) for row in rows) for column in range(2))
    return [f"{key:{first}}  {mine:{second}}  {value}" for key, mine, value in rows]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def changed(first: Mapping[Any, Any], second: Mapping[Any, Any]) -> dict[str, tuple[Any, Any]]:
    """{dotted key: its value in both}, of the keys in which they differ; ABSENT for a value that one does not have."""
    ours, theirs = dict(flat(first)), dict(flat(second))
    both = {key: (ours.get(key, ABSENT), theirs.get(key, ABSENT)) for key in {**ours, **theirs}}
    return {key: values for key, values in both.items() if values[0] != values[1]}


def nearest(values: Mapping[Any, Any]) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """The recipe that a params file is nearest to, and what `changed` says of the two."""
    recipes = {name: changed(values, read(file_of(name))) for name in names()}
    found = min(recipes, key=lambda name: len(recipes[name]))
    return found, recipes[found]


def flat(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """{a: {b: 1}} -> ("a.b", 1)."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, values


def _described() -> str:
    """What params.yaml holds, as the recipe it is nearest to and the values in which it differs."""
    if not PARAMS_FILE.exists():
        return ""
    try:
        values = read(PARAMS_FILE)
    except DarkroomError as error:
        return f"not readable ({error})"
    name, differing = nearest(values)
    changes = [f"no {key}" if value == ABSENT else f"{key} = {short(value)}" for key, (value, _) in differing.items()]
    if not changes:
        return f"the recipe {name}"
    more = f" and {len(changes) - MOST_SHOWN} more" if len(changes) > MOST_SHOWN else ""
    return f"the recipe {name} with {', '.join(changes[:MOST_SHOWN])}{more}"
