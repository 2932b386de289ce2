"""A folder of pictures with captions: a .txt beside each, or metadata.jsonl | metadata.csv as Hugging Face has them."""

import csv
import io
import json
import posixpath
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from darkroom.core.errors import DarkroomError
from darkroom.data.images import SUFFIXES, UNREAD
from darkroom.data.manifest import Files, Manifest
from darkroom.data.names import shown
from darkroom.data.sources.base import Description, Sample, Skipped
from darkroom.data.sources.captions import KEYS, UnusableCaptionError, check_size, from_record, from_text
from darkroom.data.sources.layout import STRAY, official_splits, pictures_among, read_picture

METADATA = ("metadata.jsonl", "metadata.csv")
FILE_KEY = "file_name"  # relative to the metadata file


class CaptionedFolder:
    """Folders train/, validation/, test/ are official splits. A picture with several records gives several samples.

    root: relative to the data root, or absolute.
    """

    def __init__(self, root: str, manifest: Manifest | None = None) -> None:
        self.files = Files(root, manifest, (*SUFFIXES, *UNREAD, ".txt", *METADATA))

    @cached_property
    def _pictures(self) -> dict[str, str | None]:
        return official_splits(pictures_among(self.files))

    @property
    def description(self) -> Description:
        return Description("captioned_folder", len(pictures_among(self.files)))

    def __iter__(self) -> Iterator[Sample | Skipped]:
        strays = set(pictures_among(self.files)) - self._pictures.keys()
        yield from (Skipped(name, STRAY) for name in sorted(strays))
        captions: dict[str, list[str]] = {}
        refused: set[str] = set()
        for where, file, record in self._records():
            try:
                caption = from_record(record)
            except UnusableCaptionError as error:
                refused.add(file or where)
                yield Skipped(file or where, str(error))
                continue
            if file in self._pictures:
                captions.setdefault(file, []).append(caption)
            elif file not in strays:
                yield Skipped(file or where, f"named in {where} but not there" if file else f"no {FILE_KEY}")
        for name, split in self._pictures.items():
            if name in refused and name not in captions:
                continue
            image = read_picture(self.files, name)
            if isinstance(image, Skipped):
                yield image
                continue
            try:
                said = captions.get(name) or [self._sidecar(name)]
            except UnusableCaptionError as error:
                yield Skipped(name, str(error))
                continue
            yield from (Sample(image, name, caption, split) for caption in said)

    def _sidecar(self, name: str) -> str:
        sidecar = f"{posixpath.splitext(name)[0]}.txt"
        if sidecar not in self._texts:
            raise UnusableCaptionError(f"no caption: no {posixpath.basename(sidecar)} beside it, no record of it")
        check_size(self.files.size(sidecar))
        return from_text(self.files.read(sidecar))

    @cached_property
    def _texts(self) -> set[str]:
        return {name for name in self.files.names if name.endswith(".txt")}

    def _records(self) -> Iterator[tuple[str, str, Any]]:
        """(where it stands, picture or "", record) for each record of each metadata file."""
        for metadata in (n for n in self.files.names if posixpath.basename(n) in METADATA):
            text = self.files.read(metadata).decode("utf-8-sig", "surrogateescape")
            read = _read_jsonl if metadata.endswith(".jsonl") else _read_csv
            for line, record in read(metadata, text):
                given = record.get(FILE_KEY) if isinstance(record, dict) else None
                file = (
                    posixpath.normpath(posixpath.join(posixpath.dirname(metadata), given))
                    if given and isinstance(given, str)
                    else ""
                )
                yield f"{metadata} line {line}", file, record


def _read_jsonl(name: str, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _read_csv(name: str, text: str) -> Iterator[tuple[int, Any]]:
    """Strict, for a quote that is never closed takes all that follows for one caption."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        if FILE_KEY not in columns or not set(KEYS) & set(columns):
            raise DarkroomError(
                f"{shown(name)}: needs the columns {FILE_KEY} and {KEYS[0]}; it has "
                f"{shown(', '.join(columns)) or 'none'}"
            )
        for record in reader:
            yield reader.line_num, record
    except csv.Error as error:
        raise DarkroomError(f"{shown(name)} line {reader.line_num}: not CSV ({error}); mend the line") from None
