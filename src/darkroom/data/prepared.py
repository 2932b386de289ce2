"""data/prepared: the one format of pictures and captions, written once by prepare_data and read by every later stage.

A folder of Parquet shards per split in the Hugging Face image schema, and dataset.json, which describes them.
"""

import json
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.config.paths import PREPARED
from darkroom.core.artifact import read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.data.account import Account
from darkroom.data.head import Head
from darkroom.data.png import Encoded, png_pixels

if TYPE_CHECKING:  # whoever checks parameters against the data needs no tensors, and importing torch takes seconds
    from torch import Tensor

INFO = "dataset.json"
SHARD_ROWS = 10_000
GROUP_ROWS, GROUP_BYTES = 1000, 16 << 20  # a row group ends at whichever comes first
IN_MEMORY_BYTES = 1 << 30  # splits whose decoded pictures fit are decoded once
CACHED_GROUPS = 4
COMMON_WORDS = 20
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


def _schema(heads: tuple[Head, ...], class_labelled: bool) -> pa.Schema:
    """Columns, and the metadata by which Hugging Face datasets know them."""
    fields = [
        pa.field("image", pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        pa.field("caption", pa.string()),
    ]
    features: dict[str, Any] = {"image": {"_type": "Image"}, "caption": {"dtype": "string", "_type": "Value"}}
    if class_labelled:
        fields.append(pa.field("label", pa.int64()))
        features["label"] = {"names": list(heads[0].classes), "_type": "ClassLabel"}
    elif heads:
        for name, kind, dtype in (("labels", pa.int8(), "int8"), ("named", pa.bool_(), "bool")):
            fields.append(pa.field(name, pa.list_(kind)))
            features[name] = {"feature": {"dtype": dtype, "_type": "Value"}, "_type": "Sequence"}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


@dataclass(frozen=True)
class Row:
    """One picture to write: uint8 (H, W) or (H, W, 3), its name in the source, what it is called and what it shows.

    variant: 0 is the picture as it is; others are crops of it. encoded: what `Encoded.of` makes of the pixels, where
        that was done before.
    """

    pixels: npt.NDArray[np.uint8]
    path: str
    caption: str
    labels: tuple[int, ...]
    mentioned: tuple[bool, ...]
    variant: int = 0
    encoded: Encoded | None = None


class _SplitWriter:
    """Collects rows into row groups, row groups into shards."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder, self.schema = folder, schema
        self.rows = 0
        self._shard: pq.ParquetWriter | None = None
        self._group: list[dict[str, Any]] = []
        self._bytes = 0
        folder.mkdir(parents=True)

    def add(self, row: dict[str, Any]) -> None:
        self._group.append(row)
        self._bytes += len(row["image"]["bytes"])
        self.rows += 1
        full = self.rows % SHARD_ROWS == 0
        if full or len(self._group) == GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()
        if full:
            self.close()

    def _flush(self) -> None:
        if not self._group:
            return
        if self._shard is None:
            name = f"{(self.rows - 1) // SHARD_ROWS:05d}.parquet"
            self._shard = pq.ParquetWriter(self.folder / name, self.schema, use_dictionary=["caption"])
        self._shard.write_table(pa.Table.from_pylist(self._group, self.schema))
        self._group, self._bytes = [], 0

    def close(self) -> None:
        self._flush()
        if self._shard is not None:
            self._shard.close()
        self._shard = None


class PreparedWriter:
    """Writes a prepared data set into the folder `root`, row by row, then `finish` describes it.

    Equal rows in equal order give equal bytes.
    """

    def __init__(
        self, root: Path, source: str, heads: tuple[Head, ...], captions: bool, image_size: int, channels: int
    ) -> None:
        self.root = root
        self.info = Info(source, image_size, channels, {}, (), (), {}, heads, captions)
        self._splits: dict[str, _SplitWriter] = {}
        self._words: Counter[str] = Counter()
        self._sum = np.zeros(channels, np.int64)
        self._squares = np.zeros(channels, np.int64)
        root.mkdir(parents=True, exist_ok=True)

    def add(self, split: str, row: Row) -> None:
        """Append a picture to a split."""
        if split not in self._splits:
            self._splits[split] = _SplitWriter(self.root / split, _schema(self.info.heads, self.info.class_labelled))
        encoded = row.encoded or Encoded.of(row.pixels)
        out: dict[str, Any] = {"image": {"bytes": encoded.png, "path": row.path}, "caption": row.caption}
        if self.info.class_labelled:
            out["label"] = row.labels[0]
        elif self.info.heads:
            out |= {"labels": row.labels, "named": row.mentioned}
        self._splits[split].add(out)
        if split == "train":
            self._sum += encoded.total
            self._squares += encoded.squares
            if not row.variant:
                self._words.update(row.caption.lower().split())

    @property
    def splits(self) -> dict[str, int]:
        """Rows so far in each split."""
        return {name: split.rows for name, split in sorted(self._splits.items())}

    def finish(
        self,
        pictures: Account = Account(),  # noqa: B008 (frozen)
        skipped: Sequence[dict[str, str]] = (),
        strays: Sequence[dict[str, str]] = (),
        set_aside: dict[str, int] | None = None,
        details: dict[str, Any] | None = None,
        variants: int = 1,
    ) -> Info:
        """Close the shards and write dataset.json."""
        for split in self._splits.values():
            split.close()
        n = max(self.splits.get("train", 0) * self.info.image_size**2, 1)
        mean = self._sum / n
        std = np.sqrt(np.maximum(self._squares / n - mean**2, 0))
        common = sorted(self._words.items(), key=lambda item: (-item[1], item[0]))[:COMMON_WORDS]
        info = Info(
            source=self.info.source,
            image_size=self.info.image_size,
            channels=self.info.channels,
            splits=self.splits,
            channel_mean=tuple(round(float(m) / 127.5 - 1, 6) for m in mean),
            channel_std=tuple(round(float(s) / 127.5, 6) for s in std),
            vocabulary={"words": len(self._words), "most_common": [list(item) for item in common]},
            heads=self.info.heads,
            captions=self.info.captions,
            pictures=pictures,
            skipped=tuple(skipped),
            strays=tuple(strays),
            set_aside=set_aside or {},
            details=details or {},
            variants=variants,
        )
        info.write(self.root)
        return info


class PreparedSplit:
    """One split: captions and labels at hand, pictures decoded when asked for."""

    def __init__(self, folder: Path, info: Info) -> None:
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
        self.info = info
        self.name = folder.name
        self.captions: list[str] = table["caption"].to_pylist()
        self._table = table
        self._groups = [(f, g) for f in self._files for g in range(f.metadata.num_row_groups)]
        rows = [f.metadata.row_group(g).num_rows for f, g in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(rows)])
        self._decoded: OrderedDict[int, Tensor] = OrderedDict()
        self._in_memory: Tensor | None = None

    def __len__(self) -> int:
        return len(self.captions)

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

        A split whose decoded pictures fit into 1 GiB is decoded once and kept. A larger one is decoded by row group,
        the last few kept: read it in order, or in runs of neighbours.
        """
        import torch

        size = self.info.channels * self.info.image_size**2
        if len(self) * size <= IN_MEMORY_BYTES:
            if self._in_memory is None:
                self._in_memory = torch.cat([self._decode(g) for g in range(len(self._groups))])
            return self._in_memory if indices is None else self._in_memory[torch.as_tensor(indices, dtype=torch.int64)]
        chosen = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        out = torch.empty(
            len(chosen), self.info.channels, self.info.image_size, self.info.image_size, dtype=torch.uint8
        )
        groups = np.searchsorted(self._starts, chosen, side="right") - 1
        for group in np.unique(groups):
            here = np.flatnonzero(groups == group)
            out[torch.from_numpy(here)] = self._recent(int(group))[torch.from_numpy(chosen[here] - self._starts[group])]
        return out

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

    def split(self, name: str) -> PreparedSplit:
        """train, validation, test, or for scenes novel.

        Raises:
            DarkroomError: the data set has no such split, or it cannot be read.
        """
        if name not in self.info.splits:
            raise DarkroomError(f"{self.root}: has no split {name!r}; it has {', '.join(self.info.splits)}")
        return PreparedSplit(self.root / name, self.info)
