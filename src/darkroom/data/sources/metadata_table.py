"""Tables of captions, metadata.jsonl | .csv | .tsv, in the ways that programs write them."""

import csv
import io
import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from darkroom.core.errors import DarkroomError
from darkroom.core.text import UnreadableTextError, decode_text, printable
from darkroom.data.sources.captions import KEYS, of_record

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.tsv")  # in any case
FILE_KEY = "file_name"  # relative to the table
DELIMITERS = (",", ";", "\t", "|")
SEPARATOR_LINE = "sep="  # with which Excel says its delimiter


@dataclass(frozen=True)
class Record:
    """One line of a table. where: for messages. file: as it is written, "" where none is. value: the whole."""

    where: str
    file: str
    value: Any


def is_table(name: str) -> bool:
    """Is a file of this name a table of captions?"""
    return posixpath.basename(name).lower() in METADATA


def read_table(name: str, data: bytes) -> list[Record]:
    """The records of a table; one that holds no record is empty.

    Raises:
        DarkroomError: it is not text, not such a table, or not one of its records names a file, or none has a caption.
    """
    try:
        text = decode_text(data, errors="surrogateescape")  # a line that is not UTF-8 is no more than one line lost
    except UnreadableTextError as error:
        remedy = "" if ";" in str(error) else "; save it as UTF-8"
        raise DarkroomError(f"{printable(name)}: {error}{remedy}") from None
    if not name.lower().endswith(".jsonl"):
        return [Record(f"{name} line {line}", _file(row), row) for line, row in _rows(name, text)]
    records = [Record(f"{name} {where}", _file(value), value) for where, value in _json_values(name, text)]
    _check_keys(name, [record.value for record in records])
    return records


def _file(value: Any) -> str:
    file = of_record(value, FILE_KEY)
    return file if isinstance(file, str) else ""


def _check_keys(name: str, values: list[Any]) -> None:
    """JSON Lines that name no file, or has no captions, is told once what it lacks, not on every line."""
    if not values:
        return
    objects = [value for value in values if isinstance(value, dict)]
    if not objects:
        raise DarkroomError(
            f"{printable(name)}: is not JSON Lines: not one of its lines is a JSON object; write "
            f'{{"{FILE_KEY}": …, "{KEYS[0]}": …}} on each line'
        )
    has_file = any(of_record(value, FILE_KEY) is not None for value in objects)
    has_text = any(of_record(value, key) is not None for value in objects for key in KEYS)
    if not has_file or not has_text:
        keys = printable(", ".join(str(key) for key in objects[0])) or "none"
        raise DarkroomError(f"{printable(name)}: needs the columns {FILE_KEY} and {KEYS[0]}; it has {keys}")


def _json_values(name: str, text: str) -> Iterator[tuple[str, Any]]:
    """Each value of JSON Lines, or of one array, or one object; None for a line that is no JSON."""
    parsed = _parsed(text) if text.lstrip().startswith(("[", "{")) else None
    if isinstance(parsed, list):
        yield from ((f"entry {number}", value) for number, value in enumerate(parsed, 1))
    elif isinstance(parsed, dict) and of_record(parsed, FILE_KEY) is None:
        raise DarkroomError(
            f"{printable(name)}: is one JSON object, and not one a picture; write "
            f'{{"{FILE_KEY}": …, "{KEYS[0]}": …}} on each line'
        )
    elif isinstance(parsed, dict):
        yield "entry 1", parsed
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", _parsed(line)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _rows(name: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Strict, for a quote that is never closed takes all that follows for one caption."""
    skipped = text.lower().startswith(SEPARATOR_LINE)
    if skipped:
        text = text.partition("\n")[2]
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True, skipinitialspace=True
    )
    try:
        columns = [column for column in reader.fieldnames or [] if column]
        header = dict.fromkeys(columns, "")
        if of_record(header, FILE_KEY) is None or all(of_record(header, key) is None for key in KEYS):
            raise DarkroomError(
                f"{printable(name)}: needs the columns {FILE_KEY} and {KEYS[0]}; it has "
                f"{printable(', '.join(columns)) or 'none'}"
            )
        for row in reader:
            yield reader.line_num + skipped, row
    except csv.Error as error:
        line = reader.line_num + skipped
        raise DarkroomError(f"{printable(name)} line {line}: not CSV ({error}); fix the line") from None


def _delimiter(text: str) -> str:
    """The one at which the header falls into a column of files and one of captions; else the comma."""
    header = text.partition("\n")[0]
    for delimiter in DELIMITERS:
        columns = dict.fromkeys((c.strip().strip('"') for c in header.split(delimiter)), "")
        if of_record(columns, FILE_KEY) is not None and any(of_record(columns, key) is not None for key in KEYS):
            return delimiter
    return DELIMITERS[0]
