"""data/prepared: the one format of pictures and captions, written once by prepare_data and read by every later stage.

A folder of Parquet shards per split in the Hugging Face image schema, and dataset.json, which describes them.
"""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.config.paths import PREPARED
from darkroom.core.artifact import read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.data.account import Account
from darkroom.data.head import Head
from darkroom.data.png import png_pixels

if TYPE_CHECKING:  # whoever checks parameters against the data needs no tensors, and importing torch takes seconds
    from torch import Tensor

INFO = "dataset.json"
DECODED_BYTES = 1 << 30  # splits whose decoded pictures take no more are decoded once:
IN_MEMORY_BYTES = 64 << 20  # up to so many into memory, more into a file that is mapped
CACHED_GROUPS = 4
WORTH_A_THREAD = 96  # pixels of a side from which pictures are decoded by several threads


@dataclass(frozen=True)
class Info:
    """What dataset.json says.

    image_size: pixels; pictures are square. channels: 1 or 3.
    splits: name -> rows. variants: rows of train for each picture and caption: row i is variant i modulo variants, the
    first of which is the picture as it is and the others are crops of it; in the file where there are more than one.
    channel_mean, channel_std: of the training pictures, in [-1, 1].
    vocabulary: {"words": distinct words of the training captions, "most_common": [[word, count], …]}.
    pictures: what became of each picture of the source. skipped: [{"file", "reason"}] of those that were unusable.
    strays: [{"file", "reason"}] of captions and records that no picture came from or was lost with.
    set_aside: how many files were passed over as none of the user's pictures, by what they are.
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
            return cls(**known, details=value)
        except (AttributeError, KeyError, TypeError):
            raise DarkroomError(f"{path}: no description of prepared data; make it again with dvc repro") from None

    def write(self, root: Path) -> None:
        """Write dataset.json into `root`."""
        value = asdict(self)
        if self.variants == 1:
            del value["variants"]
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
        self.name = folder.name
        self._table = table
        self._groups = [(f, g) for f in self._files for g in range(f.metadata.num_row_groups)]
        rows = [f.metadata.row_group(g).num_rows for f, g in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(rows)])
        self._decoded: OrderedDict[int, Tensor] = OrderedDict()
        self._all: Tensor | None = None

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

    def images(self, indices: "Tensor | Sequence[int] | None" = None) -> "Tensor":
        """Pictures `indices` (all without it): uint8 (n, C, H, W), C and H = W as in the data set's info.

        A split whose decoded pictures fit into 1 GiB is decoded once and kept. A larger one, or one that is not to be
        kept, is decoded by row group, the last few kept: read it in order, or in runs of neighbours.
        """
        import torch

        size = self.info.channels * self.info.image_size**2
        if self._stays and len(self) * size <= DECODED_BYTES:
            if self._all is None:
                self._all = self._decode_all(len(self) * size)
            return self._all if indices is None else self._all[torch.as_tensor(indices, dtype=torch.int64)]
        chosen = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        out = torch.empty(
            len(chosen), self.info.channels, self.info.image_size, self.info.image_size, dtype=torch.uint8
        )
        groups = np.searchsorted(self._starts, chosen, side="right") - 1
        for group in np.unique(groups):
            here = np.flatnonzero(groups == group)
            out[torch.from_numpy(here)] = self._recent(int(group))[torch.from_numpy(chosen[here] - self._starts[group])]
        return out

    def _decode_all(self, size: int) -> "Tensor":
        """All pictures. Many lie in a file below TMPDIR that is gone with this process: of those the system keeps in
        memory what it has room for."""
        import torch

        shape = len(self), self.info.channels, self.info.image_size, self.info.image_size
        if size <= IN_MEMORY_BYTES:
            table = torch.empty(shape, dtype=torch.uint8)
        else:
            with tempfile.TemporaryFile() as file:
                if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and the end of the process later
                    os.posix_fallocate(file.fileno(), 0, size)
                table = torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))
        for group in range(len(self._groups)):
            table[self._starts[group] : self._starts[group + 1]] = self._decode(group)
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
        number = workers() if self.info.image_size >= WORTH_A_THREAD else 1
        with ThreadPoolExecutor(number) as pool:
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
