"""Every field of params.yaml is read by something, and described where it is declared."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from darkroom.config.base import Section
from darkroom.config.fields import documented
from darkroom.config.kinds import KIND, Kinds
from darkroom.config.params import Params, load

ROOT = Path(__file__).parents[2]
CODE = [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").glob("*.py")]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def fields_read(files: list[Path]) -> set[str]:
    """Names of attributes that code reads, but for what only validates them."""
    found = set[str]()
    for file in files:
        found |= set(_read(ast.parse(file.read_text(encoding="utf-8"))))
    return found


def _read(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef) and any("validator" in ast.unparse(one) for one in node.decorator_list):
        return
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        yield node.attr
    for child in ast.iter_child_nodes(node):
        yield from _read(child)


def components(value: Any) -> Iterator[Section]:
    """A section and all that are in it."""
    if isinstance(value, Section):
        yield value
        for name in type(value).model_fields:
            yield from components(getattr(value, name))


def classes(model: type[Section]) -> Iterator[type[Section]]:
    """A section's class and those of all that may stand in it."""
    yield model
    for field in model.model_fields.values():
        kinds = [one for one in field.metadata if isinstance(one, Kinds)]
        inside = [kinds[0].of(kind) for kind in kinds[0].classes] if kinds else _sections(field.annotation)
        for found in inside:
            yield from classes(found)


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)


def unread(value: Section, read: set[str]) -> set[str]:
    """Fields of a section, and of those in it, that nothing reads."""
    return {
        f"{type(one).__name__}.{name}"
        for one in components(value)
        for name in type(one).model_fields
        if name not in read | {KIND}
    }


@pytest.fixture(scope="module")
def read() -> set[str]:
    return fields_read(CODE)


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_key_of_a_recipe_is_read(file: Path, read: set[str]) -> None:
    """Fails if a recipe must state a key that nothing looks at."""
    assert unread(load(file), read) == set()


class Planted(Section):
    """A section with a field that no code reads."""

    kind: Literal["planted"]
    """Its kind."""

    unheard_of: int


def test_a_planted_field_is_found(read: set[str]) -> None:
    """Fails if the tests of this file would pass whatever the fields are."""
    assert unread(Planted(kind="planted", unheard_of=1), read) == {"Planted.unheard_of"}
    assert undescribed(Planted) == {"Planted.unheard_of"}


def undescribed(model: type[Section]) -> set[str]:
    """Fields without a docstring, of a section and of what may stand in it."""
    return {
        f"{one.__name__}.{name}"
        for one in classes(model)
        for name in one.model_fields
        if not documented(one).get(name, "").rstrip().endswith(".")
    }


def test_every_field_is_described_where_it_is_declared() -> None:
    """Fails for a field of any section without a docstring of whole sentences under it."""
    assert undescribed(Params) == set()
