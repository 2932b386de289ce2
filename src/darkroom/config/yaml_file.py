"""A params file or a recipe as YAML, its keys unchecked."""

import re
from pathlib import Path
from typing import Any

import yaml

from darkroom.core.errors import DarkroomError

REMEDY = "write one with: darkroom recipe use scenes"
FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")


class Loader(yaml.SafeLoader):
    """YAML as DVC reads it: 1e-3 is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key {key.value} stands here twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


def read(path: Path | str) -> dict[Any, Any]:
    """What a file says as it stands.

    Raises:
        DarkroomError: it is missing, cannot be read, or is not YAML with keys.
    """
    return parse(read_text(path), path)


def read_text(path: Path | str) -> str:
    """The text of a params file.

    Raises:
        DarkroomError: it is missing, cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DarkroomError(f"{path}: no such file here; {REMEDY}") from None
    except UnicodeDecodeError as error:
        raise DarkroomError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DarkroomError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from None


def parse(text: str, path: Path | str) -> dict[Any, Any]:
    """What the text of a params file says.

    Args:
        path: named in errors.

    Raises:
        DarkroomError: it is not YAML with keys.
    """
    try:
        values = yaml.load(text, Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DarkroomError(f"{path}{line}: not valid YAML: {_one_line(error.problem)}; fix that line") from None
    except RecursionError:
        raise DarkroomError(f"{path}: is nested deeper than any params file; {REMEDY}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2001-99-99
        raise DarkroomError(f"{path}: not valid YAML: {_one_line(error)}; fix it") from None
    if not isinstance(values, dict):
        raise DarkroomError(f"{path}: holds no keys; {REMEDY}")
    return values


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())
