"""Files from outside, read within limits: bytes, JSON, and the dataclasses that JSON describes."""

import json
import math
import reprlib
import stat
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from darkroom.core.errors import DarkroomError
from darkroom.core.limits import DEPTH, Limit

T = TypeVar("T")
MOST_DIGITS = 20  # of a whole number: 64 bits have no more


def read_bytes(path: Path, limit: Limit | None, remedy: str) -> bytes:
    """The content of a file; what is not a file, such as a pipe that nobody writes to, is not waited for.

    Args:
        limit: of its bytes. remedy: what its reader can do.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise DarkroomError(f"{path}: no such file; {remedy}") from None
    if not stat.S_ISREG(found.st_mode):
        what = "is a folder" if stat.S_ISDIR(found.st_mode) else "is not a file but a pipe or device"
        raise DarkroomError(f"{path}: {what}; {remedy}")
    if limit is None:
        return path.read_bytes()
    limit.check(f"{path}: size", found.st_size, remedy)
    with path.open("rb") as file:
        return file.read(limit.most)


def parse_json(text: str, infinite: Collection[str] = ()) -> Any:
    """The value of a JSON text whose readers need not fear it: it is not deep, and its keys are given once, its numbers
    finite and of 64 bits at most, its texts such as a file can hold.

    Args:
        infinite: keys whose numbers need not be finite.

    Raises ValueError: it is another one; the message is the reason.
    """
    try:
        value = json.loads(text, parse_int=_bounded_int, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEPTH.most} levels") from None
    _check_text("", value)
    boxes: list[tuple[str, Any]] = [("", value)] if isinstance(value, dict | list) else []
    for _ in range(DEPTH.most):
        deeper = []
        for name, box in boxes:
            for key, inner in box.items() if isinstance(box, dict) else ((name, one) for one in box):
                if isinstance(inner, dict | list):
                    deeper.append((key, inner))
                elif isinstance(inner, float) and not math.isfinite(inner) and key not in infinite:
                    raise ValueError(f"{reprlib.repr(key)} is {inner}, not a finite number")
                else:
                    _check_text(key, inner)
        boxes = deeper
    if boxes:
        raise ValueError(f"nested deeper than {DEPTH.most} levels")
    return value


def _bounded_int(digits: str) -> int:
    if len(digits.lstrip("-")) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits.lstrip('-'))} digits, {digits[:8]}…")
    return int(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen = set[str]()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"gives the key {reprlib.repr(twice)} twice")
    for key in values:
        _check_text(key, key)
    return values


def _check_text(key: str, value: Any) -> None:
    """Half a surrogate pair is not a letter, and no file could hold it."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{reprlib.repr(key)} holds half of a letter, {reprlib.repr(value)}") from None


def typed(kind: type[T], value: Any, where: str, remedy: str) -> T:
    """What JSON says as a dataclass `kind`: its fields and no others, each of exactly its type.

    Args:
        where: the file, and the key where it is not all that the file says.

    Raises DarkroomError: names the place, the field and what is wrong; also what `kind` itself refuses.
    """
    from pydantic import TypeAdapter, ValidationError  # takes time that most readers of files need not spend

    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, dict):
        reason = f"{reprlib.repr(value)} is not an object with keys"
    elif strange := sorted(value.keys() - known):
        reason = f"{reprlib.repr(strange[0])} is not known here"
    else:
        try:
            return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            fault = error.errors()[0]
            found = "" if fault["type"] == "missing" else f", not {reprlib.repr(fault['input'])}"
            reason = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}{found}"
        except DarkroomError as error:
            reason = str(error)
    raise DarkroomError(f"{where}: {reason}; {remedy}")
