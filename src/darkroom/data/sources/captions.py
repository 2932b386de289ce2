"""Captions from files of any origin, and captions made of class names."""

import json
from typing import Any

from darkroom.core.text import UnreadableTextError, article, decode_text

MAX_BYTES = 1 << 20
KEYS = ("text", "caption")  # of a record, the first that is there


class UnusableCaptionError(Exception):
    """No caption can be had; the message is the reason."""


def clean(caption: Any) -> str:
    """One line without double spaces.

    Raises:
        UnusableCaptionError: not a string, not UTF-8 (undecodable bytes as surrogates), too long, or empty.
    """
    if not isinstance(caption, str):
        raise UnusableCaptionError("caption is not a string")
    try:
        check_size(len(caption.encode("utf-8")))
    except UnicodeEncodeError:
        raise UnusableCaptionError("caption is not UTF-8") from None
    words = caption.replace("\0", " ").split()
    if not words:
        raise UnusableCaptionError("caption is empty")
    return " ".join(words)


def check_size(size: int) -> None:
    """Refuse a caption, or a file of one, of more than MAX_BYTES bytes. Raises UnusableCaptionError."""
    if size > MAX_BYTES:
        raise UnusableCaptionError(f"caption is larger than {MAX_BYTES >> 20} MiB")


def of_record(record: Any, key: str) -> Any:
    """What a JSON object or CSV row has under this key, or one that differs in case and blanks; None without one."""
    if not isinstance(record, dict):
        return None
    if record.get(key) is not None:
        return record[key]
    alike = (value for name, value in record.items() if isinstance(name, str) and name.strip().lower() == key)
    return next((value for value in alike if value is not None), None)


def from_record(record: Any) -> list[str]:
    """The captions of a JSON object or CSV row: its `text`, or else its `caption`, which may be a list of them.

    Raises:
        UnusableCaptionError: neither is there, or one of them is of no use.
    """
    if not isinstance(record, dict):
        raise UnusableCaptionError("not a JSON object")
    for key in KEYS:
        found = of_record(record, key)
        if found is not None:
            captions = list(dict.fromkeys(map(clean, found if isinstance(found, list) else [found])))
            if not captions:
                raise UnusableCaptionError("caption is an empty list")
            return captions
    raise UnusableCaptionError(f"no caption: neither {' nor '.join(repr(k) for k in KEYS)} is given")


def from_text(data: bytes) -> str:
    """The caption in the content of a .txt file. Raises UnusableCaptionError."""
    return clean(_decoded(data))


def from_json(data: bytes) -> list[str]:
    """The captions in the content of a .json file, as `from_record` finds them. Raises UnusableCaptionError."""
    text = _decoded(data)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise UnusableCaptionError("caption file is not JSON") from None
    return from_record(record)


def _decoded(data: bytes) -> str:
    check_size(len(data))
    try:
        return decode_text(data)
    except UnreadableTextError as error:
        raise UnusableCaptionError(f"caption {error}") from None


def from_class(template: str, label: str) -> str:
    """The template with {label} filled in; "a {label}" becomes "an airplane" where that is said."""
    if article(label) == "an":
        template = f" {template}".replace(" a {label}", " an {label}").replace(" A {label}", " An {label}")[1:]
    return template.replace("{label}", label)
