"""A params file written anew with today's keys: comments stay with the keys that they stand at."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from darkroom.config.edit import Key, scalar
from darkroom.config.upgrade import upgraded
from darkroom.config.yaml_file import Loader, read
from darkroom.core.artifact import atomic_path
from darkroom.core.errors import DarkroomError

# Names of keys that moved under another one.
RENAMED = {"mode": "kind", "pretrained_path": "path", "identity_range": "range", "lr_decay": "every"}


def upgrade(path: Path, dry_run: bool = False) -> tuple[str, str, list[str]]:
    """Bring a params file to today's keys.

    Returns:
        Its text before and after, and what was done: the steps, and the comments that are lost.

    Raises:
        DarkroomError: it cannot be read, or does not say what a new key must say.
    """
    values, done = upgraded(read(path))
    before = path.read_text(encoding="utf-8")
    if not done:
        return before, before, []
    after, lost = rewritten(before, values)
    if yaml.load(after, Loader) != values:  # a SafeLoader
        raise DarkroomError(f"{path}: cannot be written anew as it is; give each value a line of its own")
    if not dry_run:
        with atomic_path(path.resolve()) as beside:
            beside.write_text(after, encoding="utf-8")
            shutil.copymode(path, beside)
    gone = [f"the comment {comment!r} is lost with its key" for comment in dict.fromkeys(lost)]
    return before, after, done + gone


def rewritten(text: str, values: Mapping[str, Any]) -> tuple[str, list[str]]:
    """YAML of other values, in their order, with a file's comments; and the comments whose keys are gone.

    A comment follows its key where one key of its name, or of the name it has now, is left in the section.
    """
    head, above, beside = _comments(text)
    keys = [key for key, _ in _keys_of(values)]
    lost = [comment for notes in (above, beside) for key, comment in notes.items() if _present_key(key, keys) is None]
    notes = [{_present_key(key, keys): comment for key, comment in found.items()} for found in (above, beside)]
    lines = list(head)
    for key, value in _keys_of(values):
        indent = "  " * (len(key) - 1)
        if len(key) == 1 and lines:
            lines.append("")
        lines += [indent + line for line in notes[0].get(key, "").splitlines()]
        written_as = "" if isinstance(value, dict) else f" {scalar(value)}"
        comment = f" {notes[1][key]}" if key in notes[1] else ""
        lines.append(f"{indent}{key[-1]}:{written_as}{comment}")
    return "\n".join(lines) + "\n", lost


def _comments(text: str) -> tuple[list[str], dict[Key, str], dict[Key, str]]:
    """(the lines before the first key, comments above a key, comments beside one)."""
    lines, above, beside = text.splitlines(), dict[Key, str](), dict[Key, str]()
    head: list[str] = []
    for key, line, end in _lines(yaml.compose(text, Loader)):
        first = line
        while first and lines[first - 1].lstrip().startswith("#"):
            first -= 1
        found = [one.strip() for one in lines[first:line]]
        if not above and not beside and not head:
            head = [one.rstrip() for one in lines[:line]]
            while head and not head[-1]:
                head.pop()
        elif found:
            above[key] = "\n".join(found)
        rest = lines[end[0]][end[1] :].strip()
        if rest.startswith("#"):
            beside[key] = rest
    return head, above, beside


def _lines(node: Any, key: Key = ()) -> Iterator[tuple[Key, int, tuple[int, int]]]:
    """Every key with its line, and where (line, column) what stands on it ends."""
    for name, value in node.value:
        here = (*key, str(name.value))
        nested = isinstance(value, yaml.MappingNode) and not value.flow_style
        mark = name.end_mark if nested else value.end_mark
        yield here, name.start_mark.line, (mark.line, mark.column + (1 if nested else 0))
        if nested:
            yield from _lines(value, here)


def _keys_of(values: Mapping[str, Any], key: Key = ()) -> Iterator[tuple[Key, Any]]:
    for name, value in values.items():
        yield (*key, str(name)), value
        if isinstance(value, dict):
            yield from _keys_of(value, (*key, str(name)))


def _present_key(key: Key, keys: list[Key]) -> Key | None:
    """Where a comment's key is now."""
    if key in keys:
        return key
    names = {key[-1], RENAMED.get(key[-1], key[-1])}
    found = [other for other in keys if other[0] == key[0] and other[-1] in names and len(other) >= len(key)]
    nearest = [other for other in found if len(other) == min(map(len, found))]
    return nearest[0] if len(nearest) == 1 else None
