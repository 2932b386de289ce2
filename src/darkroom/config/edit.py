"""Values of a params file changed in place: nothing else of it changes by a byte, comments and line ends included."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from darkroom.config.yaml_file import Loader, read
from darkroom.core.artifact import atomic_path
from darkroom.core.errors import DarkroomError

Key = tuple[str, ...]  # ("train_unet", "steps")


def edit(path: Path, values: Mapping[Key, int | None]) -> None:
    """Give keys that stand in a params file other values.

    A link is followed: the file that it leads to is written, whole or not at all.

    Raises:
        DarkroomError: the file cannot be read, or a value does not stand there by itself (as with YAML's anchors).
    """
    wanted = read(path)
    real = path.resolve()
    text = real.read_bytes().decode("utf-8")
    for key, value in values.items():
        text = edited(path, text, key, value)
        wanted = _with(wanted, key, value)
    with atomic_path(real) as beside:
        beside.write_bytes(text.encode("utf-8"))
        shutil.copymode(real, beside)
        if not _holds(beside, wanted):
            raise _refusal(path, next(iter(values)))


def edited(path: Path, text: str, key: Key, value: Any) -> str:
    """The text of a params file with another value at a key; `path` is for messages.

    Raises:
        DarkroomError: no plain value stands there by itself.
    """
    start, end = _span(path, text, key)
    space = " " if text[start - 1 : start] == ":" else ""  # "steps:" with nothing behind it
    return text[:start] + space + scalar(value) + text[end:]


def scalar(value: Any) -> str:
    """A value as YAML on one line, floats as people write them."""
    if isinstance(value, float):
        plain = f"{value:.10f}".rstrip("0")
        return repr(value) if float(plain) != value else plain + "0" * plain.endswith(".")
    if isinstance(value, list) and not any(isinstance(one, str | list | dict) for one in value):
        return f"[{', '.join(map(scalar, value))}]"
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    dumped: str = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=10_000, allow_unicode=True)
    return dumped.removesuffix("...\n").strip()


def _span(path: Path, text: str, key: Key) -> tuple[int, int]:
    """Where the value of a key begins and ends in the text."""
    node: Any = yaml.compose(text, Loader)
    for name in key:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for name_node, value in pairs if name_node.value == name), None)
    if not isinstance(node, yaml.ScalarNode):
        raise _refusal(path, key)
    return node.start_mark.index, node.end_mark.index


def _holds(path: Path, wanted: Mapping[Any, Any]) -> bool:
    try:
        return read(path) == wanted
    except DarkroomError:
        return False


def _refusal(path: Path, key: Key) -> DarkroomError:
    return DarkroomError(f"{path}: {'.'.join(key)} does not stand there as a plain value of its own; write it so")


def _with(values: dict[Any, Any], key: Key, value: int | None) -> dict[Any, Any]:
    """A copy in which one value differs; what anchors make one object is told apart."""
    name, *rest = key
    return {**values, name: _with(values[name], tuple(rest), value) if rest else value}
