"""Tar shards of pictures and captions (WebDataset): KEY.jpg|jpeg|png|webp beside KEY.txt or KEY.json.

Members are read inside the archive; nothing is ever unpacked to disk, so a member's name is no more than a name.
"""

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from darkroom.core.errors import DarkroomError
from darkroom.data.images import MAX_BYTES
from darkroom.data.manifest import Files, Manifest
from darkroom.data.names import shown
from darkroom.data.sources.base import SPLIT_ORDER, Description, Sample, Skipped
from darkroom.data.sources.captions import MAX_BYTES as MAX_CAPTION_BYTES
from darkroom.data.sources.captions import UnusableCaptionError, from_json, from_text
from darkroom.data.sources.layout import SPLIT_FOLDERS
from darkroom.data.sources.tar_shard import TarShard

PICTURES = ("jpg", "jpeg", "png", "webp")
CAPTIONS = {"txt": from_text, "json": from_json}
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

Members = dict[str, tarfile.TarInfo]  # extension -> member, of one key


@dataclass
class _Index:
    """The samples of a shard by key, a name up to the first dot of its last part; and the members that are none."""

    samples: dict[str, Members] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


class WebDataset:
    """Shards named train-*, validation-*, test-* (or lying in folders so named) are official splits.

    root: relative to the data root, or absolute.
    """

    def __init__(self, root: str, manifest: Manifest | None = None) -> None:
        self.files = Files(root, manifest, (".tar", *COMPRESSED))

    @cached_property
    def _shards(self) -> list[tuple[str, str | None]]:
        """(name, split), held-out splits first."""
        root = shown(self.files.root)
        if not self.files.names:
            raise DarkroomError(f"{root}: no *.tar shards in this folder; check prepare_data.source.root")
        for name in self.files.names:
            if name.lower().endswith(COMPRESSED):
                raise DarkroomError(f"{root}/{shown(name)}: a compressed shard cannot be read; unpack it to .tar")
        shards = [(name, _split(name)) for name in self.files.names]
        return sorted(shards, key=lambda shard: SPLIT_ORDER.index(shard[1] or "train"))

    @cached_property
    def description(self) -> Description:
        size = 0
        for name, _ in self._shards:
            with self.files.open(name) as file:
                index = _index(TarShard(name, file))
                size += len(index.samples) + len(index.skipped)
        return Description("webdataset", size)

    def __iter__(self) -> Iterator[Sample | Skipped]:
        for name, split in self._shards:
            with self.files.open(name) as file:
                shard = TarShard(name, file)
                index = _index(shard)
                yield from index.skipped
                for key, members in index.samples.items():
                    yield _sample(shard, split, key, members)


def _index(shard: TarShard) -> _Index:
    """Every plain file that is not hidden is in it."""
    index = _Index()
    for member in shard.members:
        folder, base = posixpath.split(member.name)
        stem, _, extension = base.partition(".")
        if member.isdir() or base.startswith("."):
            continue
        reason = ""
        if not member.isfile():
            reason = "a link or device within the shard"
        elif not extension:
            reason = "its name has no extension"
        if reason:
            index.skipped.append(Skipped(f"{shard.name}/{member.name}", reason))
            continue
        members = index.samples.setdefault(posixpath.join(folder, stem), {})
        before = members.get(extension.lower())
        if before is not None:
            index.skipped.append(Skipped(f"{shard.name}/{before.name}", "a later member has the same name"))
        members[extension.lower()] = member
    for members in index.samples.values():
        others = [kind for kind in PICTURES if kind in members][1:]
        index.skipped += [Skipped(f"{shard.name}/{members[k].name}", "its key has another picture") for k in others]
    return index


def _sample(shard: TarShard, split: str | None, key: str, members: Members) -> Sample | Skipped:
    kind = next((kind for kind in PICTURES if kind in members), None)
    if kind is None:
        return Skipped(f"{shard.name}/{key}", f"no picture: it has .{', .'.join(sorted(members))}")
    name = f"{shard.name}/{members[kind].name}"
    caption = next((kind for kind in CAPTIONS if kind in members), None)
    if caption is None:
        return Skipped(name, "no caption: no .txt and no .json of the same key")
    if members[kind].size > MAX_BYTES:
        return Skipped(name, f"larger than {MAX_BYTES >> 20} MiB")
    try:
        said = CAPTIONS[caption](shard.read(members[caption], MAX_CAPTION_BYTES + 1))
    except UnusableCaptionError as error:
        return Skipped(name, str(error))
    return Sample(shard.read(members[kind], MAX_BYTES), name, said, split)


def _split(shard: str) -> str | None:
    first, base = shard.split("/")[0], posixpath.basename(shard)
    return SPLIT_FOLDERS.get(base.split("-")[0].lower()) or SPLIT_FOLDERS.get(first.lower())
