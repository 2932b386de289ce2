"""A folder of pictures with captions: a .txt beside each, or metadata.jsonl | .csv | .tsv as Hugging Face has them.

A table may also say the split of each picture, in a field `split`, and classes of attributes, in fields of your naming.
"""

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.data.head import Head
from darkroom.data.images import SUFFIXES, UNREAD
from darkroom.data.manifest import Files, Manifest
from darkroom.data.sources.base import SPLIT_ORDER, Description, OutsideSource, Sample, Skipped
from darkroom.data.sources.captions import KEYS, UnusableCaptionError, check_size, from_record, from_text
from darkroom.data.sources.layout import picture_file, pictures_among
from darkroom.data.sources.metadata_table import FILE_KEY, METADATA, Record, is_table, read_table
from darkroom.data.sources.name_matcher import NameMatcher, NoMatchError
from darkroom.data.sources.splits import STRAY, of_pictures
from darkroom.data.sources.table_fields import SPLIT_KEY, Fields, UnusableFieldError, check_columns, heads_of

TEXT = ".txt"


class CaptionedFolderSource(OutsideSource):
    """Pictures with captions beside them, a .txt for each, or metadata.jsonl, .csv or .tsv with file_name and text, as
    Hugging Face has them. In JSON, text may be a list of captions. A field split says train, validation, test or novel,
    and goes before what folders are called."""

    labelled = False
    suffixes = (*SUFFIXES, *UNREAD, TEXT, *METADATA)

    kind: Literal["captioned_folder"]
    """A .txt beside each picture, or metadata.jsonl, .csv or .tsv with file_name and text, as Hugging Face has them."""

    labels: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_ -]*$", max_length=40)]]
    """Fields of the tables that hold a class of each picture, a word or a whole number, such as [style, idea]: the
    judges learn to read them, and evaluation measures by them. Captions count as naming every one. []: none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = [label.lower() for label in self.labels]
        for label in known:
            if known.count(label) > 1:
                raise ValueError(f"labels = {self.labels} names {label!r} twice; name it once")
            if label in (FILE_KEY, *KEYS, SPLIT_KEY):
                raise ValueError(f"labels = {self.labels}: {label} is not a class of pictures; leave it out")
        return self

    def reader(self, manifest: Manifest | None) -> "CaptionedFolder":
        """See `OutsideSource.reader`."""
        return CaptionedFolder(self.root, manifest, tuple(self.labels))


@dataclass(slots=True)
class _Said:
    """What tables say of a picture: captions, why a record of it is of no use, and its other fields."""

    captions: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    fields: Fields = field(default_factory=Fields)


@dataclass(frozen=True)
class _Tables:
    """All tables of a folder. of: picture -> what they say of it. strays: records that no picture is lost with.
    columns: of all records."""

    of: dict[str, _Said]
    strays: list[Skipped]
    columns: dict[str, None]


class CaptionedFolder:
    """Splits are those that tables name, or else folders train/, validation/, test/ (see splits). A picture with
    several records, or a list of captions, gives one sample with several; records come before the .txt beside it.

    root: relative to the data root, or absolute. labels: fields of the tables that become heads.
    """

    def __init__(self, root: str, manifest: Manifest | None = None, labels: tuple[str, ...] = ()) -> None:
        self.files = Files(root, manifest, CaptionedFolderSource.suffixes)
        self.labels = labels

    @cached_property
    def _by_folder(self) -> Mapping[str, str | None]:
        """Picture -> its split, where no table names splits."""
        return of_pictures(printable(self.files.root), pictures_among(self.files), classes=False)[0]

    @cached_property
    def _tables(self) -> _Tables:
        return _read_tables(self.files, self.labels)

    @cached_property
    def _unusable(self) -> dict[str, str]:
        """Picture -> why its split or a class cannot be told."""
        found: dict[str, str] = {}
        by_table = self._names_splits
        for name in pictures_among(self.files):
            said = self._tables.of.get(name, _Said())
            try:
                if by_table:
                    said.fields.split()
                elif name not in self._by_folder:
                    raise UnusableFieldError(STRAY)
                said.fields.labels(self.labels)
            except UnusableFieldError as error:
                found[name] = str(error)
        return found

    @cached_property
    def _names_splits(self) -> bool:
        """Does any record?"""
        return any(said.fields.splits for said in self._tables.of.values())

    @cached_property
    def _splits(self) -> dict[str, str | None]:
        """Usable picture -> its split, held-out ones first.

        Raises:
            DarkroomError: tables leave nothing to train on.
        """
        usable = [name for name in pictures_among(self.files) if name not in self._unusable]
        if not self._names_splits:
            return {name: split for name, split in self._by_folder.items() if name not in self._unusable}
        found = {name: self._tables.of[name].fields.split() for name in usable}
        there = sorted(set(found.values()))
        if there and "train" not in there:
            raise DarkroomError(
                f"{printable(self.files.root)}: by the field {SPLIT_KEY} of its tables all pictures belong to "
                f"{' and '.join(there)}, and none is left to train on; give train to some, or leave the field out"
            )
        return dict(sorted(found.items(), key=lambda item: SPLIT_ORDER.index(item[1])))

    @cached_property
    def _classes(self) -> dict[str, tuple[str, ...]]:
        """Usable picture -> its class for each of `labels`."""
        return {name: self._tables.of[name].fields.labels(self.labels) for name in self._splits} if self.labels else {}

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """What pictures are labelled with.

        Raises:
            DarkroomError: no record has such a field, or its values are no classes.
        """
        if not self.labels:
            return ()
        check_columns(printable(self.files.root), self.labels, self._tables.columns)
        return heads_of(self.labels, self._classes)

    @cached_property
    def description(self) -> Description:
        size = len(pictures_among(self.files))
        set_aside = dict(sorted(self.files.left_out.items()))
        return Description("captioned_folder", size, self.heads, set_aside=set_aside)

    def __iter__(self) -> Iterator[Sample | Skipped]:
        index = [{name: i for i, name in enumerate(head.classes)} for head in self.heads]
        yield from (Skipped(name, reason) for name, reason in self._unusable.items())
        yield from self._tables.strays
        sidecars = _Sidecars(self.files, pictures_among(self.files))
        for name, split in self._splits.items():
            image = picture_file(self.files, name)
            if isinstance(image, Skipped):
                yield image
                continue
            said = self._tables.of.get(name, _Said())
            try:
                if said.refused and not said.captions:
                    raise UnusableCaptionError(said.refused[0])
                captions = said.captions or [sidecars.caption(name)]
            except UnusableCaptionError as error:
                yield Skipped(name, str(error))
                continue
            labels = tuple(known[one] for known, one in zip(index, self._classes.get(name, ()), strict=True))
            yield Sample(image, name, captions[0], split, labels, (True,) * len(labels), tuple(captions[1:]))
        yield from (Skipped(name, "a caption without a picture", picture=False) for name in sidecars.left_over())


def _read_tables(files: Files, labels: tuple[str, ...]) -> _Tables:
    """What all tables say, and the records that no caption came from, though no picture is lost with them."""
    matcher = NameMatcher(pictures_among(files))
    found = _Tables({}, [], {})
    for table in (name for name in files.names if is_table(name)):
        folder = posixpath.dirname(table)
        records = read_table(table, files.read(table))
        exact = {matcher.exact(record.file, folder) for record in records if record.file} - {None}
        claimed = {name for name in exact if name is not None}
        waiting: dict[str, list[Skipped]] = {}
        for record in records:
            if isinstance(record.value, dict):
                found.columns.update(dict.fromkeys(key for key in record.value if isinstance(key, str)))
            try:
                name = matcher.find(record.file, folder, claimed) if record.file else None
            except NoMatchError as error:
                file = posixpath.normpath(posixpath.join(folder, record.file))
                found.strays.append(Skipped(file, f"named in {record.where} but {error}", picture=False))
                continue
            reason = _take(record, _Said() if name is None else found.of.setdefault(name, _Said()), labels)
            if name is None:
                found.strays.append(Skipped(record.where, reason or f"no {FILE_KEY}", picture=False))
            elif reason:
                waiting.setdefault(name, []).append(Skipped(record.where, reason, picture=False))
        for name, refused in waiting.items():
            if found.of[name].captions:  # else it is the picture that is skipped
                found.strays.extend(refused)
    return found


def _take(record: Record, said: _Said, labels: tuple[str, ...]) -> str:
    """Take in what a record says of its picture; why no caption came from it, or ""."""
    said.fields.add(record.value, labels)
    try:
        new = [caption for caption in from_record(record.value) if caption not in said.captions]
        if not new:
            raise UnusableCaptionError("says again what another record says of its picture")
    except UnusableCaptionError as error:
        said.refused.append(str(error))
        return str(error)
    said.captions += new
    return ""


class _Sidecars:
    """The .txt files of a folder, and the pictures that they lie beside."""

    def __init__(self, files: Files, pictures: list[str]) -> None:
        self._files = files
        self._texts = [name for name in files.names if name.lower().endswith(TEXT)]
        self._matcher = NameMatcher(self._texts)
        wanted = {_beside(name) for name in pictures}
        self._claimed = {text for text in self._texts if text in wanted}
        found = Counter(text for text in map(self._find, wanted) if text is not None)
        self._shared = {text for text, pictures_of in found.items() if pictures_of > 1} - self._claimed
        self._used = set(found)

    def caption(self, picture: str) -> str:
        """What stands beside a picture. Raises UnusableCaptionError."""
        wanted = _beside(picture)
        try:
            text = self._matcher.find(wanted, claimed=self._claimed)
        except NoMatchError as error:
            if str(error).startswith("ambiguous"):
                raise UnusableCaptionError(f"caption {error}") from None
            raise UnusableCaptionError(
                f"no caption: no {posixpath.basename(wanted)} beside it, no record of it"
            ) from None
        if text in self._shared:
            raise UnusableCaptionError(f"caption ambiguous: {text} is like several pictures and exactly that of none")
        check_size(self._files.size(text))
        return from_text(self._files.read(text))

    def left_over(self) -> list[str]:
        """Those beside no picture."""
        return [text for text in self._texts if text not in self._used]

    def _find(self, wanted: str) -> str | None:
        try:
            return self._matcher.find(wanted, claimed=self._claimed)
        except NoMatchError:
            return None


def _beside(picture: str) -> str:
    return f"{posixpath.splitext(picture)[0]}{TEXT}"
