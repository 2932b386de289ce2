"""A request's body, looked at before anything is made of it: JSON of bounded depth and length, with numbers that are
some."""

import json
import math
import re
from collections.abc import Collection
from typing import Any

from darkroom.core.text import printable
from darkroom.serving.limits import LimitError, Limits, RefusedError, variable

FORMATS = ("dataframe_records", "dataframe_split", "instances", "inputs")  # MLflow's; one of them holds the rows
PARAMS = "params"
# What a body is made of besides numbers and words: a whole string, or a mark. Possessive, so that it never goes back.
MARKS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},:]', re.DOTALL)
PER_ROW, BESIDES = 32, 1000  # marks and strings that a row takes, and the rest; several times what is needed


class UnreadableError(RefusedError):
    code = "BAD_REQUEST"


def check(body: bytes, limits: Limits, params: Collection[str]) -> None:
    """Refuse a body that is not a request.

    Args:
        params: the names of the parameters that the model takes.

    Raises RefusedError: says what of it is not so.
    """
    try:
        body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableError("body: is not UTF-8") from None
    if b"\0" in body:  # JSON in UTF-16, for all that Python's reader knows
        raise UnreadableError("body: holds zero bytes; send JSON in UTF-8")
    _check_shape(body, limits)
    try:
        value = json.loads(body, parse_int=_bounded_int, parse_float=_finite, parse_constant=_finite)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise UnreadableError("body: half of a pair of \\u escapes stands alone; send whole characters") from None
    except json.JSONDecodeError as error:
        raise UnreadableError(f"body: is not JSON ({error.msg}, byte {error.pos})") from None
    _check_request(value, limits, params)


def _check_shape(body: bytes, limits: Limits) -> None:
    """Bound depth and length in one pass, without making anything of it."""
    depth, most = 0, PER_ROW * limits.rows + BESIDES
    for count, found in enumerate(MARKS.finditer(body), 1):
        mark = found[0][:1]
        depth += (mark in b"[{") - (mark in b"]}")
        limits.check("nesting", depth, "nesting of the JSON", "send the rows as MLflow takes them")
        if count > most:
            raise LimitError(
                f"body: more than {most} values, which no request of {limits.rows} rows ({variable('rows')}) needs; "
                "send fewer rows at a time"
            )


def _bounded_int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (value := int(text)) < 2**63:
        raise UnreadableError(f"{printable(text)}: is beyond 64 bits; give a smaller number")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise UnreadableError(f"{printable(text)}: is not a finite number; give one")
    return value


def _check_request(value: Any, limits: Limits, params: Collection[str]) -> None:
    """The rows under one known key, and parameters that the model has."""
    if not isinstance(value, dict):
        raise UnreadableError(f"body: give a JSON object with {FORMATS[0]}")
    if unknown := value.keys() - {*FORMATS, PARAMS}:
        raise UnreadableError(
            f"body: unknown key {printable(min(unknown))!r}; give {FORMATS[0]} and, if wished, {PARAMS}"
        )
    if len(row_keys := [key for key in FORMATS if key in value]) != 1:
        raise UnreadableError(f"body: holds {' and '.join(row_keys) or 'no rows'}; give {FORMATS[0]} alone")
    rows = value[row_keys[0]]
    if row_keys == ["dataframe_split"] and isinstance(rows, dict):
        rows = rows.get("data")
    if isinstance(rows, list):
        limits.check("rows", len(rows), "rows", "send fewer at a time")
        if not rows:
            raise UnreadableError(f"{row_keys[0]}: holds no rows; give at least one")
    asked = value.get(PARAMS)
    if asked is not None and not isinstance(asked, dict):
        raise UnreadableError(f"{PARAMS} = {printable(asked)}: give a JSON object")
    if unknown := (asked or {}).keys() - set(params):
        raise UnreadableError(
            f"{PARAMS}: unknown name {printable(min(unknown))!r}; there are {', '.join(sorted(params))}"
        )
