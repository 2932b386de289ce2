"""Faults of a params file in words: one line a fault."""

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """A line for each fault: the key, the value found, what is allowed and the remedy.

    Args:
        error: of validating against `model`.
    """
    for fault in error.errors():
        parts = _key(fault["loc"], model)
        key = ".".join(str(part) for part in parts)
        kind, value = fault["type"], fault["input"]
        if kind == "missing":
            yield f"{key} is missing; add it (recipes/scenes.yaml shows a value)"
        elif kind == "extra_forbidden":
            yield f"{key} = {value!r} is an unknown key; {_nearest(parts, model)}"
        elif kind == "value_error":
            yield f"{key + ': ' if key else ''}{fault['ctx']['error']}"
        else:
            yield f"{key} = {_short(value)}: {_allowed(fault['msg'])}; change it in params.yaml"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _allowed(message: str) -> str:
    return message[0].lower() + message[1:]


def _nearest(parts: list[str | int], model: type[BaseModel]) -> str:
    known = sorted({key for owner in _models_at(parts[:-1], model) for key in owner.model_fields})
    close = difflib.get_close_matches(str(parts[-1]), known, n=1)
    return f"did you mean {close[0]}?" if close else f"remove it; known keys: {', '.join(known) or 'see recipes/'}"


def _models_at(parts: list[str | int], model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that may stand at a key; several where there is a choice, as of a source's kind."""
    here = [model]
    for part in parts:
        fields = [owner.model_fields[part] for owner in here if part in owner.model_fields]
        here = [found for field in fields for found in _models_in(field.annotation)]
    return here


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models_in(inner)]


def _key(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str | int]:
    """The key as written in the file: pydantic's location without the chosen kind of a union."""
    parts: list[str | int] = []
    for part in location:
        owners = _models_at(parts, model)
        kinds = {kind for owner in owners if "kind" in owner.model_fields for kind in _kinds(owner)}
        if not (len(owners) > 1 and part in kinds):
            parts.append(part)
    return parts


def _kinds(owner: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(owner.model_fields["kind"].annotation)
