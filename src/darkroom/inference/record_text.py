"""The text of the record in a PNG, read without importing what draws pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.core.errors import DarkroomError
from darkroom.core.limits import JSON_BYTES, Limit
from darkroom.core.outside import parse_json, read_bytes
from darkroom.core.text import printable
from darkroom.data.images import MAX_BYTES, MAX_PIXELS, UnusablePictureError, decode

KEY = "darkroom"  # the PNG's text chunk
FORMAT = 3  # 3: the sampler with its options
FILE = Limit(MAX_BYTES, "bytes of a picture file")
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, DarkroomError)  # what reading a damaged one raises


def read_values(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a record, unchecked, and all text chunks of the PNG.

    Raises:
        DarkroomError: there is no such file, or it is not a PNG of this program, of another format, or damaged.
    """
    texts: dict[str, Any] = {str(name): text for name, text in open_picture(path).info.items()}
    if KEY not in texts:
        raise DarkroomError(f"{path}: does not say how it was made; give a PNG as darkroom wrote it")
    try:
        JSON_BYTES.check("size of its text", len(texts[KEY]), "draw fewer pictures at once")
        values: dict[str, Any] = parse_json(texts[KEY])
        version = values.pop("format")
    except UNREADABLE as error:
        raise damaged(path, str(error)) from None
    if version != FORMAT:
        raise DarkroomError(
            f"{path}: its record has format {printable(repr(version))}, not {FORMAT}; install another version"
        )
    return values, texts


def damaged(path: Path, reason: str) -> DarkroomError:
    """The error of a record that cannot be used."""
    return DarkroomError(f"{path}: its record is damaged ({printable(reason)}); give the file as it was written")


def open_picture(path: Path, limit: Limit | None = None) -> Image.Image:
    """A picture file, decoded.

    Args:
        limit: of its pixels; None: any picture that `decode` takes.

    Raises:
        DarkroomError: there is no such file, it is not a picture, or has more pixels; then it is not decoded.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # of a pipe, nothing would ever come
        raise DarkroomError(f"{path}: is not a file; name a picture")
    try:
        path.stat()
        data = read_bytes(path, FILE, "name a picture")
    except OSError as error:
        raise DarkroomError(f"{path}: cannot be read ({error.strerror}); name a picture") from None
    try:
        return decode(data, min(limit.most, MAX_PIXELS) if limit else MAX_PIXELS)
    except UnusablePictureError as error:
        remedy = "name another picture"
        raise DarkroomError(f"{path}: {error}; {limit.advice(remedy) if limit else remedy}") from None


def differences(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """The differences of two execution profiles, a line each."""
    keys = sorted(recorded.keys() | found.keys())
    pairs = [(key, recorded.get(key, "unknown"), found.get(key, "unknown")) for key in keys]
    return [f"{key}: {before} -> {now}" for key, before, now in pairs if before != now]
