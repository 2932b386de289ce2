"""A recipe states a base and its differences: here they become the text of a complete params file.

    # First line: what the recipe is.
    base: latent

    train_unet:
      steps: 3000 # why

A mapping is merged with the base's, key by key; one of another `kind:` replaces it, and so does any other value.
Comments stay with their values: the base's where the value is the base's, otherwise the recipe's.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import yaml

from darkroom.config.kinds import KIND
from darkroom.config.yaml_file import Loader, parse, read_text
from darkroom.core.errors import DarkroomError

BASE = "base"  # the key that names a recipe's base, and the folder of the bases beside the recipes
INDENT = "  "
HAS_BASE = re.compile(rf"^{BASE}\s*:", re.MULTILINE)
COMMENT = re.compile(r"[ :]*(#.*)?$")


@dataclass(frozen=True)
class Entry:
    """A key of a params file, as text.

    above: the comments and empty lines above it. value: "" where it has keys of its own. comment: on its own line,
        behind the value.
    """

    above: tuple[str, ...]
    value: str
    comment: str
    children: Mapping[str, "Entry"] = field(default_factory=dict)


Entries = Mapping[str, Entry]


def complete_text(path: Path) -> str:
    """The text of a params file, which is complete as it stands, or of a recipe with what its base says.

    Raises:
        DarkroomError: the file or its base cannot be read, there is no such base, or the base has one itself.
    """
    text = read_text(path)
    bases = path.parent / BASE
    if not (HAS_BASE.search(text) and bases.is_dir()):
        return text
    name = parse(text, path)[BASE]
    known = sorted(file.stem for file in bases.glob("*.yaml"))
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"give {' or '.join(known)}"
        raise DarkroomError(f"{path}: {BASE} = {name!r}: no such base in {bases}; {remedy}")
    base = bases / f"{name}.yaml"
    below = _entries(read_text(base), base)
    if BASE in below:
        raise DarkroomError(f"{base}: {BASE} = {below[BASE].value}: a base is complete; remove the key, write the rest")
    changes = dict(_entries(text, path))
    header = [line for line in changes.pop(BASE).above if line]
    first, *others = _merged(below, changes).items()
    merged = {first[0]: replace(first[1], above=(*header, "")), **dict(others)}
    return "".join(f"{line}\n" for line in _lines(merged))


@cache
def _entries(text: str, path: Path) -> Entries:
    parse(text, path)  # for its errors
    node = yaml.compose(text, Loader)
    assert isinstance(node, yaml.MappingNode)
    return _children(node, text.splitlines(), path)


def _children(node: yaml.MappingNode, lines: list[str], path: Path) -> Entries:
    entries = {}
    for key, value in node.value:
        start, end = value.start_mark, value.end_mark
        children: Entries = {}
        if isinstance(value, yaml.MappingNode) and value.value:
            children = _children(value, lines, path)
            end = end if value.flow_style else key.end_mark
        elif (start.line, end.line) != (key.start_mark.line,) * 2:
            raise DarkroomError(f"{path} line {start.line + 1}: {key.value}: write its value on the line of the key")
        text = "" if children else lines[start.line][start.column : end.column]
        behind = COMMENT.match(lines[end.line], end.column)
        entries[key.value] = Entry(_above(key, lines), text, behind[0].lstrip(":") if behind else "", children)
    return entries


def _above(key: yaml.Node, lines: list[str]) -> tuple[str, ...]:
    """The comments and empty lines above a key that is the first on its line."""
    last = first = key.start_mark.line
    while first and lines[first - 1].lstrip()[:1] in ("", "#"):
        first -= 1
    is_first = not lines[last][: key.start_mark.column].strip()
    return tuple(line.strip() for line in lines[first:last]) if is_first else ()


def _merged(base: Entries, changes: Entries) -> Entries:
    if KIND in base and KIND in changes and base[KIND].value != changes[KIND].value:
        return changes
    merged = dict(base)
    for key, change in changes.items():
        below = base.get(key, Entry((), "", ""))
        children = _merged(below.children, change.children) if below.children else change.children
        kept = change.children and children is not change.children
        comments = tuple(line for line in change.above if line) or (below.above if kept else ())
        space = ("",) if below.above[:1] == ("",) and comments[:1] != ("",) else ()
        comment = change.comment or (below.comment if kept else "")
        merged[key] = Entry((*space, *comments), change.value, comment, children if change.children else {})
    return merged


def _lines(entries: Entries, depth: int = 0) -> Iterator[str]:
    for key, entry in entries.items():
        yield from (f"{INDENT * depth}{line}" if line else "" for line in entry.above)
        yield f"{INDENT * depth}{key}:{' ' if entry.value else ''}{entry.value}{entry.comment}"
        yield from _lines(entry.children, depth + 1)
