"""The keys that params.yaml may have: what each of them means and takes, and which class says so."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from darkroom.config.base import Section
from darkroom.config.kinds import KIND, Kinds

BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
NUMBERS = {"integer": "a whole number", "number": "a number"}
Model = type[Section]


def alternatives(annotation: Any) -> dict[str, Callable[[], Model]]:
    """The classes of the sections that a field takes: {kind, "" without one: its class, imported when called}."""
    if isinstance(annotation, FieldInfo):
        annotation = annotation.rebuild_annotation()
    if isinstance(annotation, type) and issubclass(annotation, Section):
        kinds = get_args(annotation.model_fields[KIND].annotation) if KIND in annotation.model_fields else ("",)
        return {kind: partial(_itself, annotation) for kind in kinds}
    for marker in getattr(annotation, "__metadata__", ()):
        if isinstance(marker, Kinds):
            return {kind: partial(marker.of, kind) for kind in marker.classes}
    return {kind: load for inner in get_args(annotation) for kind, load in alternatives(inner).items()}


def _itself(model: Model) -> Model:
    return model


def class_of(annotation: Any, value: Any) -> Model | None:
    """The class that a field takes for a value, by the value's own kind; None where that is not a section of a kind."""
    classes = alternatives(annotation)
    kind = value.get(KIND, "") if isinstance(value, Mapping) else ""
    load = classes.get(kind if isinstance(kind, str) else "")
    return load() if load else None


@cache
def documented(model: Model) -> dict[str, str]:
    """{key: the docstring under it in the class or the classes it is made of}, each in one line."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not issubclass(owner, Section):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, below in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[statement.target.id] = " ".join(str(below.value.value).split())
    return found


def takes(annotation: Any, item: bool = False) -> str:
    """What a field takes, in words; item: what each entry of its list does."""
    if kinds := [*alternatives(annotation)]:
        section = "a section of keys" if kinds == [""] else f"a section with kind: {' or '.join(kinds)}"
        members = list(_members(annotation.annotation if isinstance(annotation, FieldInfo) else annotation))
        plain = [one for one in members if one is not type(None) and not alternatives(one)]
        words = [*(_takes(_schema(one, item=False)) for one in plain), section]
        return ", or ".join([*words, "null"] if type(None) in members else words)
    return _takes(_schema(annotation, item))


def _members(annotation: Any) -> Iterator[Any]:
    """The types that a union takes, those of unions in it too; of another type, itself."""
    inner = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if get_origin(inner) in (Union, UnionType):
        for member in get_args(inner):
            yield from _members(member)
    else:
        yield annotation


def choices(annotation: Any, item: bool = False) -> list[str]:
    """The values of a choice; empty where anything else is allowed."""
    return _choices(_schema(annotation, item))


def _schema(annotation: Any, item: bool) -> dict[str, Any]:
    if isinstance(annotation, FieldInfo):
        annotation = annotation.rebuild_annotation()
    schema = TypeAdapter[Any](annotation).json_schema()
    lists = [one for one in (schema, *schema.get("anyOf", ())) if "items" in one]
    return lists[0]["items"] if item and lists else schema


def _takes(schema: Mapping[str, Any]) -> str:
    if listed := _choices(schema):
        return " or ".join(listed)
    if "anyOf" in schema:
        return ", or ".join(dict.fromkeys(map(_takes, schema["anyOf"])))
    kind = schema.get("type")
    if kind in NUMBERS:
        bounds = (f"{sign} {_number(schema[name])}" for name, sign in BOUNDS.items() if name in schema)
        return f"{NUMBERS[kind]} {' and '.join(bounds)}".strip()
    if kind == "array":
        return f"a list{_length(schema)}, each {_takes(schema['items'])}"
    return "text that is not empty" if schema.get("minLength") else "text"


def _choices(schema: Mapping[str, Any]) -> list[str]:
    if "anyOf" in schema:
        inner = [_choices(one) for one in schema["anyOf"]]
        return [word for words in inner for word in words] if all(inner) else []
    of_type: dict[str, list[Any]] = {"null": [None], "boolean": [True, False]}
    of_type[""] = [schema["const"]] if "const" in schema else schema.get("enum", [])
    listed = of_type[""] or of_type.get(schema.get("type", ""), [])
    return [
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in listed
    ]


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _length(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if most is None:
        return f" of {least} at least" if least else ""
    return f" of {least}" if least == most else f" of {least} to {most}"


@dataclass(frozen=True)
class Key:
    """A key that params.yaml may have.

    path: dotted. kinds: {dotted key of a section around it: the kind by which it has this key}.
    """

    path: str
    kinds: tuple[tuple[str, str], ...]
    owner: Model
    field: FieldInfo

    @property
    def meaning(self) -> str:
        """The docstring under the field; "" where it has none."""
        return documented(self.owner).get(self.path.rpartition(".")[2], "")


def keys(model: Model, path: Sequence[str] = (), kinds: tuple[tuple[str, str], ...] = ()) -> Iterator[Key]:
    """Every key of a section and of the sections in it, of all their kinds, in the order of their classes."""
    for name, field in model.model_fields.items():
        here = ".".join((*path, name))
        yield Key(here, kinds, model, field)
        for kind, load in alternatives(field).items():
            yield from keys(load(), (*path, name), (*kinds, (here, kind)) if kind else kinds)
