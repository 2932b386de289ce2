"""Tar shards of pictures and captions (WebDataset): KEY.jpg | png | … beside KEY.txt or KEY.json.

Members are read inside the archive; nothing is ever unpacked to disk, so a member's name is no more than a name.

A key is a name up to the first dot of its last part, so that 0001.cls.txt belongs to 0001. A picture whose name has
more dots has a key of its own, up to the last dot, where a number stands between them (frame.0000.png) or where a
caption of just this name lies beside it. Otherwise it is the picture of its key if that has no other; and set aside as
a further one of the sample (0001.depth.png) if it has a plain one.
"""

import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from darkroom.core.errors import DarkroomError
from darkroom.core.system_files import system_part
from darkroom.core.text import printable
from darkroom.data.images import MAX_BYTES, SUFFIXES, UNREAD
from darkroom.data.manifest import Files, Manifest
from darkroom.data.sources.base import Description, OutsideSource, Sample, Skipped
from darkroom.data.sources.captions import MAX_BYTES as MAX_CAPTION_BYTES
from darkroom.data.sources.captions import UnusableCaptionError, from_json, from_text
from darkroom.data.sources.layout import NOT_READ
from darkroom.data.sources.name_matcher import NameMatcher, NoMatchError
from darkroom.data.sources.splits import check_members, of_shards
from darkroom.data.sources.tar_shard import TarShard

# Of several pictures of a key, the first of these is used.
PICTURES = tuple(dict.fromkeys(("jpg", "jpeg", "png", "webp", *(suffix[1:] for suffix in (*SUFFIXES, *UNREAD)))))
CAPTIONS = {"txt": lambda data: [from_text(data)], "json": from_json}  # the first that is there
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
FURTHER = "further pictures of a sample"  # set aside

Members = dict[str, tarfile.TarInfo]  # extension -> member, of one key


@dataclass
class _Index:
    """The pictures of a shard with their captions, in its order; what is skipped; and what is set aside."""

    pictures: list[tuple[tarfile.TarInfo, Members]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    set_aside: Counter[str] = field(default_factory=Counter)


class WebDatasetSource(OutsideSource):
    """Tar shards of pictures with captions."""

    labelled = False
    suffixes = (".tar", *COMPRESSED)

    kind: Literal["webdataset"]
    """KEY.jpg, KEY.png, … with KEY.txt or KEY.json, as WebDataset has them."""

    def reader(self, manifest: Manifest | None) -> "WebDataset":
        """See `OutsideSource.reader`."""
        return WebDataset(self.root, manifest)


class WebDataset:
    """Shards whose names, or whose folders' names, say train, validation, test or novel are official splits.

    root: relative to the data root, or absolute.
    """

    def __init__(self, root: str, manifest: Manifest | None = None) -> None:
        self.files = Files(root, manifest, WebDatasetSource.suffixes)

    @cached_property
    def _shards(self) -> dict[str, str | None]:
        """Shard -> split, held-out splits first."""
        root = printable(self.files.root)
        if not self.files.names:
            raise DarkroomError(f"{root}: no *.tar shards in this folder; check prepare_data.source.root")
        for name in self.files.names:
            if name.lower().endswith(COMPRESSED):
                raise DarkroomError(f"{root}/{printable(name)}: a compressed shard cannot be read; unpack it to .tar")
        return of_shards(root, self.files.names)

    @cached_property
    def description(self) -> Description:
        size, set_aside = 0, Counter[str]()
        for name, split in self._shards.items():
            with self.files.open(name) as file:
                index = _index(TarShard(name, file))
                check_members(printable(name), split, (picture.name for picture, _ in index.pictures))
                size += len(index.pictures) + len(index.skipped)
                set_aside += index.set_aside
        return Description("webdataset", size, set_aside=dict(sorted((set_aside + self.files.left_out).items())))

    def __iter__(self) -> Iterator[Sample | Skipped]:
        for name, split in self._shards.items():
            with self.files.open(name) as file:
                shard = TarShard(name, file)
                index = _index(shard)
                yield from index.skipped
                for picture, captions in index.pictures:
                    yield _sample(shard, split, picture, captions)


def _index(shard: TarShard) -> _Index:
    """Every plain file that is neither hidden nor a system's own is in it."""
    index = _Index()

    def skip(member: tarfile.TarInfo, reason: str) -> None:
        index.skipped.append(Skipped(f"{shard.name}/{member.name}", reason, _is_picture(member.name)))

    last: dict[str, tarfile.TarInfo] = {}
    for member in shard.members:
        system = system_part(member.name)
        if system is not None:
            index.set_aside[system] += _is_picture(member.name)
        elif member.isdir():
            continue
        elif not member.isfile():
            skip(member, "a link or device within the shard")
        elif "." not in posixpath.basename(member.name):
            skip(member, "its name has no extension")
        else:
            if member.name in last:
                skip(last[member.name], "a later member has the same name")
            last[member.name] = member
    index.set_aside = +index.set_aside
    pictures: dict[str, list[tarfile.TarInfo]] = {}
    others: dict[str, Members] = {}
    captions = {name.rpartition(".")[0] for name in last if _suffix(name) in CAPTIONS}
    for name, member in last.items():
        if _is_picture(name):
            pictures.setdefault(_picture_key(name, captions), []).append(member)
    for name, member in last.items():
        if not _is_picture(name):
            stem, _, suffix = name.rpartition(".")
            of_its_own = suffix.lower() in CAPTIONS and stem in pictures
            key, extension = (stem, suffix) if of_its_own else _split_name(name)
            before = others.setdefault(key, {}).get(extension.lower())
            if before is not None:
                skip(before, "a later member has the same name")
            others[key][extension.lower()] = member
    used = _match(index, shard, pictures, others)
    for key in (key for key in others if key not in used):
        index.skipped.append(
            Skipped(f"{shard.name}/{key}", f"no picture: it has .{', .'.join(sorted(others[key]))}", picture=False)
        )
    return index


def _match(
    index: _Index, shard: TarShard, pictures: dict[str, list[tarfile.TarInfo]], others: dict[str, Members]
) -> set[str]:
    """Give each key's picture its captions; returns the keys of `others` that have a picture."""
    matcher = NameMatcher(key for key, members in others.items() if members.keys() & CAPTIONS.keys())
    claimed = pictures.keys() & others.keys()
    alike: dict[str, str] = {}  # key of a picture -> that of the captions it is like
    for key in (key for key in pictures if not others.get(key, {}).keys() & CAPTIONS.keys()):
        with suppress(NoMatchError):
            alike[key] = matcher.find(key, claimed=claimed)
    shared = Counter(alike.values())
    for key, found in pictures.items():
        picture = _chosen(index, shard, key, found)
        if picture is not None:
            like = alike.get(key)
            members = others.get(key, {}) if like is None or shared[like] > 1 else others[like]
            index.pictures.append((picture, members))
    return claimed | {like for like in alike.values() if shared[like] == 1}


def _chosen(index: _Index, shard: TarShard, key: str, found: list[tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """The picture of a key; what becomes of the others is noted."""
    plain = [member for member in found if member.name.rpartition(".")[0] == key]
    if not plain and len(found) > 1:
        reason = f"its key {key} has {len(found)} pictures and no plain one; name the one to be used {key}.png"
        index.skipped += [Skipped(f"{shard.name}/{member.name}", reason) for member in found]
        return None
    first, *more = sorted(plain or found, key=lambda member: PICTURES.index(_suffix(member.name)))
    index.skipped += [Skipped(f"{shard.name}/{member.name}", "its key has another picture") for member in more]
    further = len(found) - len(plain) if plain else 0
    if further:
        index.set_aside[FURTHER] += further
    return first


def _picture_key(name: str, captions: set[str]) -> str:
    stem = name.rpartition(".")[0]
    key, extension = _split_name(name)
    middle = extension.split(".")[:-1]
    numbered = any(part.isdigit() for part in middle)
    return stem if numbered or stem in captions else key


def _split_name(name: str) -> tuple[str, str]:
    """(key, extension) by WebDataset's rule: at the first dot of the last part."""
    folder, base = posixpath.split(name)
    stem, _, extension = base.partition(".")
    return posixpath.join(folder, stem), extension


def _is_picture(name: str) -> bool:
    return "." in posixpath.basename(name) and _suffix(name) in PICTURES


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _sample(shard: TarShard, split: str | None, picture: tarfile.TarInfo, members: Members) -> Sample | Skipped:
    name = f"{shard.name}/{picture.name}"
    if f".{_suffix(picture.name)}" in UNREAD:
        return Skipped(name, NOT_READ)
    caption = next((kind for kind in CAPTIONS if kind in members), None)
    if caption is None:
        return Skipped(name, "no caption: no .txt and no .json of the same key")
    if picture.size > MAX_BYTES:
        return Skipped(name, f"larger than {MAX_BYTES >> 20} MiB")
    try:
        said = CAPTIONS[caption](shard.read(members[caption], MAX_CAPTION_BYTES + 1))
    except UnusableCaptionError as error:
        return Skipped(name, str(error))
    return Sample(shard.read(picture, MAX_BYTES), name, said[0], split, others=tuple(said[1:]))
