"""A folder of pictures with captions: a .txt beside each, or metadata.jsonl | .csv | .tsv as Hugging Face has them."""

import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from darkroom.core.text import printable
from darkroom.data.images import SUFFIXES, UNREAD
from darkroom.data.manifest import Files, Manifest
from darkroom.data.sources.base import Description, OutsideSource, Sample, Skipped
from darkroom.data.sources.captions import UnusableCaptionError, check_size, from_record, from_text
from darkroom.data.sources.layout import pictures_among, read_picture
from darkroom.data.sources.metadata_table import FILE_KEY, METADATA, Record, is_table, read_table
from darkroom.data.sources.name_matcher import NameMatcher, NoMatchError
from darkroom.data.sources.splits import STRAY, of_pictures

TEXT = ".txt"


@dataclass
class _Said:
    """What tables say of a picture: captions, and why a record of it is of no use."""

    captions: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class CaptionedFolderSource(OutsideSource):
    """Pictures with captions beside them."""

    labelled = False
    suffixes = (*SUFFIXES, *UNREAD, TEXT, *METADATA)

    kind: Literal["captioned_folder"]
    """A .txt beside each picture, or metadata.jsonl, .csv or .tsv with file_name and text, as Hugging Face has them."""

    def reader(self, manifest: Manifest | None) -> "CaptionedFolder":
        """See `OutsideSource.reader`."""
        return CaptionedFolder(self.root, manifest)


class CaptionedFolder:
    """Folders train/, validation/, test/ are official splits (see splits). A picture with several records gives one
    sample with several captions; records come before the .txt beside a picture.

    root: relative to the data root, or absolute.
    """

    def __init__(self, root: str, manifest: Manifest | None = None) -> None:
        self.files = Files(root, manifest, CaptionedFolderSource.suffixes)

    @cached_property
    def _pictures(self) -> dict[str, str | None]:
        return of_pictures(printable(self.files.root), pictures_among(self.files), classes=False)[0]

    @property
    def description(self) -> Description:
        size = len(pictures_among(self.files))
        return Description("captioned_folder", size, set_aside=dict(sorted(self.files.left_out.items())))

    def __iter__(self) -> Iterator[Sample | Skipped]:
        pictures = pictures_among(self.files)
        yield from (Skipped(name, STRAY) for name in pictures if name not in self._pictures)
        said: dict[str, _Said] = {}
        yield from self._read_tables(NameMatcher(pictures), said)
        sidecars = _Sidecars(self.files, pictures)
        for name, split in self._pictures.items():
            image = read_picture(self.files, name)
            if isinstance(image, Skipped):
                yield image
                continue
            records = said.get(name, _Said())
            try:
                if records.refused and not records.captions:
                    raise UnusableCaptionError(records.refused[0])
                captions = records.captions or [sidecars.caption(name)]
            except UnusableCaptionError as error:
                yield Skipped(name, str(error))
                continue
            yield Sample(image, name, captions[0], split, others=tuple(captions[1:]))
        yield from (Skipped(name, "a caption without a picture", picture=False) for name in sidecars.left_over())

    def _read_tables(self, matcher: NameMatcher, said: dict[str, _Said]) -> Iterator[Skipped]:
        """Fills `said`; gives the records that no caption came from, though no picture is lost with them."""
        for table in (name for name in self.files.names if is_table(name)):
            folder = posixpath.dirname(table)
            records = read_table(table, self.files.read(table))
            exact = {matcher.exact(record.file, folder) for record in records if record.file} - {None}
            claimed = {name for name in exact if name is not None}
            waiting: dict[str, list[tuple[Record, str]]] = {}
            for record in records:
                try:
                    name = matcher.find(record.file, folder, claimed) if record.file else None
                except NoMatchError as error:
                    reason = f"named in {record.where} but {error}"
                    yield Skipped(posixpath.normpath(posixpath.join(folder, record.file)), reason, picture=False)
                    continue
                about = said.setdefault(name, _Said()) if name is not None else _Said()
                try:
                    caption = from_record(record.value)
                    if name is None:
                        raise UnusableCaptionError(f"no {FILE_KEY}")
                    if caption in about.captions:
                        raise UnusableCaptionError("says again what another record says of its picture")
                    about.captions.append(caption)
                except UnusableCaptionError as error:
                    about.refused.append(str(error))
                    if name is None:
                        yield Skipped(record.where, str(error), picture=False)
                    else:
                        waiting.setdefault(name, []).append((record, str(error)))
            for name, refused in waiting.items():
                if said[name].captions:  # else it is the picture that is skipped
                    yield from (Skipped(record.where, reason, picture=False) for record, reason in refused)


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
