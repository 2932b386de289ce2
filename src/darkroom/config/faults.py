"""Faults of a params file in words: one line a fault."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from darkroom.config.fields import Model, alternatives, choices, class_of, takes
from darkroom.config.kinds import KIND

LONGEST = 60  # letters of a value or key in a message
UNKNOWN = ("extra_forbidden", "invalid_key")  # the latter of keys that are not text
Example = Callable[[Sequence[str], Any], str]


@dataclass(frozen=True)
class _Location:
    """Where a fault is.

    key: as the file writes it. model: of the section there, None of a plain value. field: the one that the key, or the
        list whose entry it is, belongs to.
    """

    key: tuple[str | int, ...]
    model: Model | None
    field: FieldInfo | None

    def __str__(self) -> str:
        return ".".join(short(part, plain=True) for part in self.key)

    @property
    def is_item(self) -> bool:
        return isinstance(self.key[-1], int)


def explain(error: ValidationError, values: Any, model: Model, example: Example | None = None) -> Iterator[str]:
    """A line for each fault: the key, the value found, what is allowed and the remedy; misspelt keys first.

    Args:
        error: of validating `values` against `model`.
        example: (key, kind of its section or None) -> the command that shows it in a recipe.
    """
    found = sorted(error.errors(), key=lambda fault: fault["type"] not in UNKNOWN)
    yield from dict.fromkeys(_line(fault, values, model, example) for fault in found)


def _missing(key: str, path: Sequence[str], kind: Any, example: Example | None) -> str:
    return f"{key} is missing; add it" + (f" ({example(path, kind)} has one)" if example else "")


def _line(fault: ErrorDetails, values: Any, model: Model, example: Example | None) -> str:
    kind, context, value = fault["type"], fault.get("ctx", {}), fault["input"]
    if kind in (*UNKNOWN, "missing"):
        section, name = _locate(fault["loc"][:-1], values, model), fault["loc"][-1]
        key = str(_Location((*section.key, name), None, None))
        if kind == "missing":
            own_kind = value.get(KIND) if isinstance(value, Mapping) else None
            return _missing(key, [*map(str, section.key), str(name)], own_kind, example)
        found = f" = {short(value)}" if kind == "extra_forbidden" else ""
        return f"{key}{found} is an unknown key; {_nearest(name, section.model)}"
    location = _locate(fault["loc"], values, model)
    if kind == "value_error":  # a check of our own, which begins with a key relative to its section
        return f"{location}.{context['error']}" if location.key else str(context["error"])
    if kind == "union_tag_not_found" and isinstance(value, Mapping):
        return _missing(f"{location}.{KIND}", [*map(str, location.key), KIND], None, example)
    if kind == "union_tag_invalid":
        tag = value.get(KIND) if isinstance(value, Mapping) else value
        return f"{location}.{KIND} = {short(tag)}: {_one_of(tag, [*alternatives(location.field)])}"
    if listed := _choices_at(location):
        return f"{location} = {short(value)}: {_one_of(value, listed)}"
    return f"{location} = {short(value)}: give {takes(location.field, location.is_item)}"


def _locate(path: Sequence[str | int], values: Any, model: Model) -> _Location:
    """Where pydantic's path leads. It also names the member of a union that was tried, which is not part of the key."""
    key: list[str | int] = []
    here: Model | None = model
    field: FieldInfo | None = None
    for part in path:
        if here is not None and part in here.model_fields:
            field = here.model_fields[str(part)]
        elif not isinstance(part, int):
            continue
        key.append(part)
        try:
            values = values[part]
        except (LookupError, TypeError):
            values = None
        here = class_of(field, values)
    return _Location(tuple(key), here, field)


def _choices_at(location: _Location) -> list[str]:
    """The values that may stand at a location, where they are a choice."""
    return [] if alternatives(location.field) else choices(location.field, location.is_item)


def _one_of(found: Any, listed: list[str]) -> str:
    close = difflib.get_close_matches(short(found, plain=True), listed, n=1)
    return f"give {' or '.join(listed)}" + (f"; did you mean {close[0]}?" if close else "")


def _nearest(key: Any, model: Model | None) -> str:
    known = sorted(model.model_fields) if model else []
    close = difflib.get_close_matches(short(key, plain=True), known, n=1)
    return f"did you mean {close[0]}?" if close else f"remove it; known keys: {', '.join(known)}"


def short(value: Any, plain: bool = False) -> str:
    """A value as YAML has it, on one line of at most 60 letters; plain: text without quotes where it needs none."""
    if plain and isinstance(value, str) and value.isprintable():
        text = value
    else:
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
