"""Tar shards of pictures and captions (WebDataset): KEY.jpg|jpeg|png|webp beside KEY.txt or KEY.json.

Members are read inside the archive; nothing is ever unpacked to disk, so a member's name is no more than a name.
"""

import posixpath
import tarfile
from collections.abc import Iterator
from functools import cached_property
from typing import BinaryIO

from darkroom.core.errors import DarkroomError
from darkroom.data.images import MAX_BYTES
from darkroom.data.manifest import Files, Manifest
from darkroom.data.sources.base import SPLIT_ORDER, Description, Sample, Skipped
from darkroom.data.sources.captions import MAX_BYTES as MAX_CAPTION_BYTES
from darkroom.data.sources.captions import UnusableCaptionError, from_json, from_text
from darkroom.data.sources.layout import SPLIT_FOLDERS

PICTURES = ("jpg", "jpeg", "png", "webp")
CAPTIONS = {"txt": from_text, "json": from_json}


class WebDataset:
    """Shards named train-*, validation-*, test-* (or lying in folders so named) are official splits.

    root: relative to the data root, or absolute.
    """

    def __init__(self, root: str, manifest: Manifest | None = None) -> None:
        self.files = Files(root, manifest, (".tar",))

    @cached_property
    def _shards(self) -> list[tuple[str, str | None]]:
        """(name, split), held-out splits first."""
        if not self.files.names:
            raise DarkroomError(f"{self.files.root}: no *.tar shards in this folder; check prepare_data.source.root")
        shards = [(name, _split(name)) for name in self.files.names]
        return sorted(shards, key=lambda shard: SPLIT_ORDER.index(shard[1] or "train"))

    @cached_property
    def description(self) -> Description:
        size = 0
        for name, _ in self._shards:
            with self.files.open(name) as file:
                size += len(self._index(name, file)[1])
        return Description("webdataset", size)

    def __iter__(self) -> Iterator[Sample | Skipped]:
        for shard, split in self._shards:
            with self.files.open(shard) as file:
                archive, samples = self._index(shard, file)
                for key, members in samples.items():
                    yield self._sample(shard, split, key, members, archive)

    def _index(self, shard: str, file: BinaryIO) -> tuple[tarfile.TarFile, dict[str, dict[str, tarfile.TarInfo]]]:
        """The archive, and key -> {extension: member}; a key is a name up to the first dot of its last part."""
        samples: dict[str, dict[str, tarfile.TarInfo]] = {}
        try:
            archive = tarfile.TarFile(fileobj=file)
            members = [member for member in archive if member.isfile()]
            file.seek(archive.offset)  # tarfile takes a broken header in mid-archive for the end
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("broken header")
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise DarkroomError(f"{shard}: damaged tar shard ({error}); fetch it again or remove it") from None
        for member in members:
            folder, base = posixpath.split(member.name)
            stem, _, extension = base.partition(".")
            if stem and extension:
                samples.setdefault(posixpath.join(folder, stem), {})[extension.lower()] = member
        return archive, samples

    def _sample(
        self, shard: str, split: str | None, key: str, members: dict[str, tarfile.TarInfo], archive: tarfile.TarFile
    ) -> Sample | Skipped:
        kind = next((kind for kind in PICTURES if kind in members), None)
        if kind is None:
            return Skipped(f"{shard}/{key}", f"no picture: it has .{', .'.join(sorted(members))}")
        name = f"{shard}/{members[kind].name}"
        caption = next((kind for kind in CAPTIONS if kind in members), None)
        if caption is None:
            return Skipped(name, "no caption: no .txt and no .json of the same key")
        if members[kind].size > MAX_BYTES:
            return Skipped(name, f"larger than {MAX_BYTES >> 20} MiB")
        try:
            said = CAPTIONS[caption](_read(shard, archive, members[caption], MAX_CAPTION_BYTES + 1))
        except UnusableCaptionError as error:
            return Skipped(name, str(error))
        return Sample(_read(shard, archive, members[kind], MAX_BYTES), name, said, split)


def _split(shard: str) -> str | None:
    first, base = shard.split("/")[0], posixpath.basename(shard)
    return SPLIT_FOLDERS.get(base.split("-")[0].lower()) or SPLIT_FOLDERS.get(first.lower())


def _read(shard: str, archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    content = archive.extractfile(member)
    try:
        return content.read(most) if content is not None else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DarkroomError(f"{shard}: damaged at {member.name} ({error}); fetch it again or remove it") from None
