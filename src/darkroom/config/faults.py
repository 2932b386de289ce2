"""Faults of a params file in words: one line a fault."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from darkroom.config.kinds import KIND, Kinds

LONGEST = 60  # letters of a value or key in a message
BOUNDS = {"gt": "> {}", "ge": ">= {}", "lt": "< {}", "le": "<= {}"}
LENGTHS = {"min_length": ">= {}", "max_length": "<= {}"}
WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "model": "a section of keys",
    "finite": "a finite number",
}
UNKNOWN = ("extra_forbidden", "invalid_key")  # the latter of keys that are no text
Key = list[str | int]
Models = list[type[BaseModel]]


def explain(
    error: ValidationError,
    model: type[BaseModel],
    values: Any,
    example: Callable[[Sequence[str], Any], str] | None = None,
) -> Iterator[str]:
    """A line for each fault: the key, the value found, what is allowed and the remedy; misspelt keys first.

    Args:
        error: of validating `values` against `model`.
        example: (key, kind of its section or None) -> the recipe that shows it.
    """

    def missing(key: str, parts: Key, kind: Any) -> str:
        shown = f" ({example([str(part) for part in parts], kind)} shows one)" if example else ""
        return f"{key} is missing; add it{shown}"

    model = _of_chosen_kinds(model, values)
    for fault in sorted(error.errors(), key=lambda fault: fault["type"] not in UNKNOWN):
        parts = _key(fault["loc"], model)
        key, kind, context = ".".join(short(part, plain=True) for part in parts), fault["type"], fault.get("ctx", {})
        if kind == "missing":
            kind_here = fault["input"].get("kind") if isinstance(fault["input"], dict) else None
            yield missing(key, parts, kind_here)
        elif kind in UNKNOWN:
            value = f" = {short(fault['input'])}" if kind == "extra_forbidden" else ""
            yield f"{key}{value} is an unknown key; {_nearest(fault['loc'], model)}"
        elif kind == "value_error":  # a check of our own, which begins with a key relative to its section
            yield f"{key}.{context['error']}" if key else str(context["error"])
        elif kind == "union_tag_not_found":
            tag = _tag(context)
            yield missing(f"{key}.{tag}", [*parts, tag], None)
        elif kind == "union_tag_invalid":
            allowed = _unquoted(context["expected_tags"])
            yield f"{key}.{_tag(context)} = {short(context['tag'])}: {_one_of(context['tag'], allowed)}"
        elif kind == "literal_error":
            yield f"{key} = {short(fault['input'])}: {_one_of(fault['input'], _choices(parts, model))}"
        else:
            yield f"{key} = {short(fault['input'])}: give {_wanted(fault, parts, model)}"


def _of_chosen_kinds(model: type[BaseModel], values: Any) -> type[BaseModel]:
    """A model with every component that may be of several `Kinds` of the one that `values` choose."""
    stated = values if isinstance(values, dict) else {}
    chosen: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner, annotation = stated.get(name), field.annotation
        for kinds in (extra for extra in field.metadata if isinstance(extra, Kinds)):
            kind = inner.get(KIND) if isinstance(inner, dict) else None
            annotation = kinds.of(kind) if isinstance(kind, str) and kind in kinds.classes else annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = _of_chosen_kinds(annotation, inner)
        if annotation is not field.annotation:
            chosen[name] = (annotation, FieldInfo(annotation=annotation))
    return create_model(model.__name__, __base__=model, **chosen) if chosen else model


def _wanted(fault: ErrorDetails, parts: Key, model: type[BaseModel]) -> str:
    kind = fault["type"]
    if kind in ("too_short", "too_long"):
        return f"a list, its length {_range(_field(parts, model), LENGTHS)}"
    if kind == "string_too_short":
        return "text that is not empty"
    number = kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
    what = "a number" if number else WANTED.get(kind.split("_")[0], fault["msg"])
    if not number and kind.split("_")[0] not in ("int", "float", "finite"):
        return what
    bounds = _range(_field(parts, model), BOUNDS)
    return f"{what} {bounds}" if bounds else what


def _range(annotation: Any, names: Mapping[str, str]) -> str:
    """The bounds of a value in words, from the constraints of its type."""
    constraints = _constraints(annotation)
    found = [
        words.format(f"{value:g}" if isinstance(value, float) else value)
        for name, words in names.items()
        for constraint in constraints
        if (value := getattr(constraint, name, None)) is not None
    ]
    return " and ".join(found)


def _constraints(annotation: Any) -> list[Any]:
    """What limits a value: of an optional one, what limits the value that is not null."""
    if isinstance(annotation, FieldInfo):
        return [*annotation.metadata, *_constraints(annotation.annotation)]
    if hasattr(annotation, "__metadata__"):
        return [c for m in annotation.__metadata__ for c in (m.metadata if isinstance(m, FieldInfo) else [m])]
    if type(None) in get_args(annotation):
        return [found for inner in get_args(annotation) for found in _constraints(inner)]
    return []


def _field(parts: Key, model: type[BaseModel]) -> Any:
    """The field at a key; of an entry of a list, the type of the entries."""
    name = max(i for i, part in enumerate(parts) if isinstance(part, str))
    owners = _models_at(parts[:name], model)
    field = next(owner.model_fields[str(parts[name])] for owner in owners if parts[name] in owner.model_fields)
    return field if name == len(parts) - 1 else get_args(field.annotation)[0]


def _choices(parts: Key, model: type[BaseModel]) -> list[str]:
    """The values of a Literal; of an optional one also null."""
    field = _field(parts, model)
    choices = get_args(field.annotation if isinstance(field, FieldInfo) else field)
    if type(None) in choices:
        return [*map(str, get_args(choices[0])), "null"]
    return [*map(str, choices)]


def _one_of(found: Any, allowed: list[str]) -> str:
    close = difflib.get_close_matches(short(found, plain=True), allowed, n=1)
    return f"give {' or '.join(allowed)}" + (f"; did you mean {close[0]}?" if close else "")


def _tag(context: Mapping[str, Any]) -> str:
    return _unquoted(str(context["discriminator"]))[0]


def _unquoted(names: str) -> list[str]:
    return [name.strip().strip("'") for name in names.split(",")]


def short(value: Any, plain: bool = False) -> str:
    """A value as YAML has it, on one line of at most 60 letters; plain: text without quotes where it needs none."""
    if plain and isinstance(value, str) and value.isprintable():
        text = value
    else:
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _nearest(location: Sequence[str | int], model: type[BaseModel]) -> str:
    known = sorted({key for owner in _models_at(location[:-1], model) for key in owner.model_fields})
    close = difflib.get_close_matches(short(location[-1], plain=True), known, n=1)
    return f"did you mean {close[0]}?" if close else f"remove it; known keys: {', '.join(known)}"


def _models_at(parts: Sequence[str | int], model: type[BaseModel]) -> Models:
    """The models that may stand at a key; several where there is a choice, as of a source's kind, and none is named."""
    here = [model]
    for part in parts:
        if chosen := _of_kind(part, here):
            here = chosen
            continue
        fields = [owner.model_fields[part] for owner in here if part in owner.model_fields]
        here = [found for field in fields for found in _models_in(field.annotation)]
    return here


def _of_kind(part: str | int, owners: Models) -> Models:
    """Where there is a choice: those that a part of pydantic's location chooses, if it does."""
    return [owner for owner in owners if part in _kinds(owner)] if len(owners) > 1 else []


def _models_in(annotation: Any) -> Models:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models_in(inner)]


def _key(location: tuple[int | str, ...], model: type[BaseModel]) -> Key:
    """The key as written in the file: pydantic's location without the chosen kind of a union."""
    parts: Key = []
    for part in location:
        if not _of_kind(part, _models_at(parts, model)):
            parts.append(part)
    return parts


def _kinds(owner: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(owner.model_fields["kind"].annotation) if "kind" in owner.model_fields else ()
