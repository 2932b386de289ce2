"""data/prepared: the one format of pictures and captions, written once by prepare_data and read by every later stage.

A folder of Parquet shards per split in the Hugging Face image schema, and dataset.json, which describes them. With
buckets, the shards of a split hold one bucket each, in order. Where a picture has several rows, one for each of its
captions, pictures.npz holds for each split (rows,) int64: row -> picture, numbered as they first come.
"""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.config.buckets import Size
from darkroom.config.paths import PREPARED
from darkroom.core.artifact import read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.data.account import Account
from darkroom.data.buckets import Bucket, squashed
from darkroom.data.head import Head
from darkroom.data.png import png_pixels

if TYPE_CHECKING:  # whoever checks parameters against the data needs no tensors, and importing torch takes seconds
    from torch import Tensor

INFO, PICTURES = "dataset.json", "pictures.npz"
DECODED_BYTES = 1 << 30  # splits whose decoded pictures take no more are decoded once:
IN_MEMORY_BYTES = 64 << 20  # up to so many into memory, more into a file that is mapped
CACHED_GROUPS = 4
WORTH_A_THREAD = 96  # pixels of a side from which pictures are decoded by several threads


@dataclass(frozen=True)
class Info:
    """What dataset.json says.

    image_size: pixels; pictures are square, or have the size of their bucket. channels: 1 or 3.
    splits: name -> rows. variants: rows of train for each picture and caption, in the file where there are several: row
    i is variant i modulo variants, the first the picture as it is, others crops. channel_mean, channel_std: of train.
    vocabulary: {"words": distinct words of the training captions, "most_common": [[word, count], …]}. pictures: what
    became of each picture of the source. skipped: [{"file", "reason"}] of those that were unusable. strays: likewise of
    captions and records that no picture came from or was lost with.
    set_aside: how many files were passed over as none of the user's pictures, by what they are.
    buckets: those that have pictures; none where all are squares. cropped_share: mean share of a picture's area that
    was cut off, crops apart. Both are in the file where there is anything to say.
    details: what only this source has, such as novel_pairs of scenes; its entries stand beside the others in the file.
    """

    source: str
    image_size: int
    channels: int
    splits: dict[str, int]
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    vocabulary: dict[str, Any]
    heads: tuple[Head, ...]
    captions: bool
    skipped: tuple[dict[str, str], ...] = ()
    pictures: Account = field(default_factory=Account)
    strays: tuple[dict[str, str], ...] = ()
    set_aside: dict[str, int] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    variants: int = 1
    buckets: tuple[Bucket, ...] = ()
    cropped_share: float = 0.0

    @property
    def sizes(self) -> list[Size]:
        """(height, width) of the buckets, or of the one square."""
        return [of.size for of in self.buckets] or [(self.image_size, self.image_size)]

    def runs(self, split: str) -> list[tuple[Size, range]]:
        """The rows of a split that are of one size: all, or those of each bucket that has any."""
        if not self.buckets:
            return [((self.image_size, self.image_size), range(self.splits[split]))]
        found, start = [], 0
        for of in self.buckets:
            if rows := of.splits.get(split, 0):
                found.append((of.size, range(start, start + rows)))
                start += rows
        return found

    @property
    def class_labelled(self) -> bool:
        """One class a picture (True), or structured labels or none (False)."""
        return len(self.heads) == 1 and self.heads[0].name == "label"

    @classmethod
    def read(cls, root: Path | str) -> "Info":
        """Raises DarkroomError where there is no prepared data."""
        path = Path(root) / INFO
        value = read_json(path)
        try:
            known = {name: value.pop(name) for name in cls.__dataclass_fields__ if name in value}
            for name in ("channel_mean", "channel_std", "skipped", "strays"):
                known[name] = tuple(known[name])
            known["pictures"] = Account(**known["pictures"])
            known["heads"] = tuple(Head(h["name"], tuple(h["classes"])) for h in known["heads"])
            known["buckets"] = tuple(Bucket(**of) for of in known.get("buckets", ()))
            return cls(**known, details=value)
        except (AttributeError, KeyError, TypeError):
            raise DarkroomError(f"{path}: no description of prepared data; make it again with dvc repro") from None

    def write(self, root: Path) -> None:
        """Write dataset.json into `root`."""
        value = asdict(self)
        for name in ("variants", "buckets", "cropped_share"):
            if getattr(self, name) == self.__dataclass_fields__[name].default:
                del value[name]
        write_json(root / INFO, {**value.pop("details"), **value})


class PreparedSplit:
    """One split: captions and labels at hand, pictures decoded when asked for.

    in_memory: whether the pictures are kept, where they fit into DECODED_BYTES.
    """

    def __init__(self, folder: Path, info: Info, in_memory: bool = True) -> None:
        shards = sorted(folder.glob("*.parquet"))
        if not shards:
            raise DarkroomError(f"{folder}: no such split; run the stage that makes it (dvc repro prepare_data)")
        try:
            self._files = [pq.ParquetFile(shard, memory_map=True) for shard in shards]
            wanted = ["caption"] + (["label"] if info.class_labelled else ["labels", "named"] if info.heads else [])
            table = pa.concat_tables([file.read(columns=wanted) for file in self._files])
        except (pa.ArrowException, OSError) as error:
            raise DarkroomError(
                f"{folder}: unreadable ({error}); make it again with dvc repro -f prepare_data"
            ) from None
        self.info, self._stays = info, in_memory
        self.name, self._folder = folder.name, folder
        self._table = table
        self._groups = [(f, g) for f in self._files for g in range(f.metadata.num_row_groups)]
        rows = [f.metadata.row_group(g).num_rows for f, g in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(rows)])
        self._decoded: OrderedDict[int, Tensor] = OrderedDict()
        self._all: list[Tensor] | None = None
        runs = info.runs(self.name) if info.buckets else [((info.image_size, info.image_size), range(len(table)))]
        self.sizes, self.runs = [size for size, _ in runs], [rows for _, rows in runs]

    def __len__(self) -> int:
        return len(self._table)

    @cached_property
    def captions(self) -> list[str]:
        """Of every row."""
        return list(self.caption_column.to_pylist())

    @property
    def caption_column(self) -> pa.ChunkedArray:
        """The same as a column of Arrow's, in a fraction of the memory."""
        return self._table["caption"]

    @cached_property
    def labels(self) -> "Tensor":
        """int64 (N, H); H = 0 without labels, -1 where there is none."""
        return self._labels[0]

    @cached_property
    def mentioned(self) -> "Tensor":
        """bool (N, H): whether the caption says it."""
        return self._labels[1]

    @cached_property
    def _labels(self) -> tuple["Tensor", "Tensor"]:
        import torch

        table = self._table
        if not self.info.heads:
            return torch.empty(len(table), 0, dtype=torch.int64), torch.empty(len(table), 0, dtype=torch.bool)
        if self.info.class_labelled:
            labels = torch.from_numpy(table["label"].to_numpy().copy())[:, None]
            return labels, labels >= 0
        both = [table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False) for name in ("labels", "named")]
        labels, mentioned = (torch.from_numpy(values.copy()).view(len(table), len(self.info.heads)) for values in both)
        return labels.long(), mentioned

    @cached_property
    def pictures(self) -> "Tensor | None":
        """Row -> picture, (N,) int64; None where each row has a picture of its own."""
        import torch

        try:
            with np.load(self._folder.parent / PICTURES, allow_pickle=False) as file:
                return torch.from_numpy(file[self.name])
        except FileNotFoundError:
            return None

    @property
    def first_rows(self) -> "Tensor":
        """The first row (P,) int64 of each picture, whatever the number of its captions; crops are others."""
        import torch

        rows, of = torch.arange(len(self)), self.pictures
        return (
            rows if of is None else rows.new_full((int(of.max()) + 1,), len(rows)).scatter_reduce(0, of, rows, "amin")
        )

    def uncropped(self) -> "Tensor":
        """The same (P,) int64, without crops."""
        rows = self.first_rows
        return rows[rows % self.info.variants == 0] if self.name == "train" else rows

    def spread(self, n: int) -> "Tensor":
        """Rows (n,) int64, ascending, all where there are no more: the first ones, of each size its share of them."""
        import torch

        from darkroom.core.tensors import shares

        pairs = zip(self.runs, shares([*map(len, self.runs)], n), strict=True)
        return torch.cat([torch.arange(rows.start, rows.start + count) for rows, count in pairs])

    def by_size(self, indices: "Tensor | Sequence[int]") -> "Iterator[tuple[Tensor, Tensor]]":
        """Of each size, which of `indices` have it, (m,) int64, and their pictures, uint8 (m, C, H, W)."""
        import torch

        chosen = torch.as_tensor(indices, dtype=torch.int64)
        for rows in self.runs:
            here = ((chosen >= rows.start) & (chosen < rows.stop)).nonzero().flatten()
            if len(here):
                yield here, self.images(chosen[here])

    def squares(self, indices: "Tensor | Sequence[int]") -> "Tensor":
        """Pictures `indices` as squares, uint8 (n, C, S, S), of the side in the data set's info: as judges see them.

        A picture of another size is squashed, as the inputs of Inception and CLIP are where their papers measure.
        """
        import torch

        side = self.info.image_size
        if self.sizes == [(side, side)]:
            return self.images(indices)
        out = torch.empty(len(indices), self.info.channels, side, side, dtype=torch.uint8)
        for here, pictures in self.by_size(indices):
            out[here] = squashed(pictures, side)
        return out

    def images(self, indices: "Tensor | Sequence[int] | None" = None) -> "Tensor":
        """Pictures `indices` (all without it), which are of one size: uint8 (n, C, H, W).

        A split whose decoded pictures fit into 1 GiB is decoded once and kept. A larger one, or one that is not to be
        kept, is decoded by row group, the last few kept: read it in order, or in runs of neighbours.

        Raises:
            DarkroomError: they are of several sizes.
        """
        import torch

        chosen = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        height, width = self.sizes[run := self._run(chosen)]
        if self._stays and self._bytes <= DECODED_BYTES:
            if self._all is None:
                self._all = [self._decode_run(i) for i in range(len(self.runs))]
            table, start = self._all[run], self.runs[run].start
            return table if indices is None else table[torch.from_numpy(chosen - start if start else chosen)]
        out = torch.empty(len(chosen), self.info.channels, height, width, dtype=torch.uint8)
        groups = np.searchsorted(self._starts, chosen, side="right") - 1
        for group in np.unique(groups):
            here = np.flatnonzero(groups == group)
            out[torch.from_numpy(here)] = self._recent(int(group))[torch.from_numpy(chosen[here] - self._starts[group])]
        return out

    def _run(self, chosen: npt.NDArray[np.int64]) -> int:
        """The number of the size that these rows have."""
        if len(self.runs) == 1 or not len(chosen):
            return 0
        first, last = (
            int(np.searchsorted([r.stop for r in self.runs], i, side="right")) for i in (chosen.min(), chosen.max())
        )
        if first != last:
            sizes = " and ".join(f"{height} x {width}" for height, width in (self.sizes[first], self.sizes[last]))
            raise DarkroomError(f"{self._folder}: pictures of {sizes} pixels do not go into one batch")
        return first

    @property
    def _bytes(self) -> int:
        """Of all pictures, decoded."""
        sides = zip(self.sizes, self.runs, strict=True)
        return self.info.channels * sum(height * width * len(rows) for (height, width), rows in sides)

    def _decode_run(self, run: int) -> "Tensor":
        """All pictures of one size. Many lie in a file below TMPDIR that is gone with this process: of those the system
        keeps in memory what it has room for."""
        import torch

        rows, (height, width) = self.runs[run], self.sizes[run]
        shape = len(rows), self.info.channels, height, width
        if self._bytes <= IN_MEMORY_BYTES:
            table = torch.empty(shape, dtype=torch.uint8)
        else:
            with tempfile.TemporaryFile() as file:
                if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and the end of the process later
                    os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
                table = torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))
        for group, start in enumerate(self._starts[:-1]):
            if rows.start <= start < rows.stop:
                table[start - rows.start : self._starts[group + 1] - rows.start] = self._decode(group)
        return table

    def _recent(self, group: int) -> "Tensor":
        if group not in self._decoded:
            self._decoded[group] = self._decode(group)
            if len(self._decoded) > CACHED_GROUPS:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(group)
        return self._decoded[group]

    def _decode(self, group: int) -> "Tensor":
        """All pictures of a row group, uint8 (n, C, H, W)."""
        import torch

        from darkroom.core.ahead import workers

        file, index = self._groups[group]
        column = file.read_row_group(index, columns=["image"])["image"].combine_chunks().field("bytes")
        with ThreadPoolExecutor(workers() if max(map(max, self.sizes)) >= WORTH_A_THREAD else 1) as pool:
            stacked = torch.from_numpy(np.stack(list(pool.map(png_pixels, column.to_pylist()))))
        return stacked[:, None] if stacked.ndim == 3 else stacked.permute(0, 3, 1, 2).contiguous()


class Prepared:
    """A prepared data set on disk."""

    def __init__(self, root: Path, info: Info) -> None:
        self.root, self.info = root, info

    @classmethod
    def open(cls, root: Path | str = PREPARED) -> "Prepared":
        """Raises DarkroomError where there is none."""
        return cls(Path(root), Info.read(root))

    def split(self, name: str, in_memory: bool = True) -> PreparedSplit:
        """train, validation, test, or for scenes novel; see PreparedSplit.

        Raises:
            DarkroomError: the data set has no such split, or it cannot be read.
        """
        if name not in self.info.splits:
            raise DarkroomError(f"{self.root}: has no split {name!r}; it has {', '.join(self.info.splits)}")
        return PreparedSplit(self.root / name, self.info, in_memory)
