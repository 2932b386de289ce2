"""A params file as YAML, unchecked but for what no params file holds: it may come from anywhere."""

import math
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from darkroom.config.faults import short
from darkroom.core.errors import DarkroomError

MAX_BYTES = 1 << 18
MAX_VALUES, MAX_DEPTH = 5_000, 30  # anchors counted wherever they are used: a few lines of them can mean billions
MAX_INTEGER = 10**300
REMEDY = "write one with: darkroom recipe use scenes"


class Loader(yaml.SafeLoader):
    """YAML as DVC reads it: 1e-3 is a number, and a key given twice is an error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # 2001-99-99, !!bool 7, 9 x 5000
            value = short(node.value) if isinstance(node, yaml.ScalarNode) else "this"
            problem = f"{value} cannot be read as {short(node.tag.rpartition(':')[2], plain=True)}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is no text", problem_mark=key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                problem = f"the key {short(key, plain=True)} stands here twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


def read(path: Path | str) -> dict[Any, Any]:
    """What a params file says, unchecked.

    Raises:
        DarkroomError: it is missing, no YAML with keys, or larger, deeper or of longer numbers than any params file.
    """
    try:
        values = yaml.load(_text(Path(path)), Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DarkroomError(f"{path}{line}: not valid YAML: {_one_line(error.problem)}; mend that line") from None
    except yaml.YAMLError as error:
        raise DarkroomError(f"{path}: not valid YAML: {_one_line(error)}; mend it") from None
    except RecursionError:
        raise DarkroomError(f"{path}: {_too_deep()}") from None
    if not isinstance(values, dict):
        raise DarkroomError(f"{path}: holds no keys; {REMEDY}")
    for count, (value, depth) in enumerate(_walk(values)):
        if depth > MAX_DEPTH:
            raise DarkroomError(f"{path}: {_too_deep()}")
        if count > MAX_VALUES:
            raise DarkroomError(f"{path}: holds more than {MAX_VALUES} values; {REMEDY}")
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise DarkroomError(f"{path}: holds a number of more than {math.log10(MAX_INTEGER):.0f} digits; {REMEDY}")
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise DarkroomError(f"{path}: {short(value)} is not text that UTF-8 can hold; {REMEDY}")
    return values


def _text(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DarkroomError(f"{path}: cannot be read (it is a folder, pipe or device); {REMEDY}")
        if status.st_size > MAX_BYTES:
            raise DarkroomError(f"{path}: is larger than {MAX_BYTES >> 10} KiB; {REMEDY}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DarkroomError(f"{path}: no such file here; {REMEDY}") from None
    except UnicodeDecodeError as error:
        raise DarkroomError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DarkroomError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}); {REMEDY}") from None


def _walk(values: Any) -> Iterator[tuple[Any, int]]:
    """Every value and key with its depth; without end where a value holds itself."""
    waiting = [(values, 0)]
    while waiting:
        value, depth = waiting.pop()
        yield value, depth
        if isinstance(value, dict):
            waiting += [(inner, depth + 1) for pair in value.items() for inner in pair]
        elif isinstance(value, list | tuple | set):
            waiting += [(inner, depth + 1) for inner in value]


def _too_deep() -> str:
    return f"is nested deeper than {MAX_DEPTH} levels; {REMEDY}"


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())
