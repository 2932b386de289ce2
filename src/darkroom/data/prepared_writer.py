"""Writing data/prepared: Parquet shards of pictures, captions and labels, and dataset.json at the end."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.data.account import Account
from darkroom.data.head import Head
from darkroom.data.png import Encoded, png_pixels
from darkroom.data.prepared import Info

COMMON_WORDS = 20
SHARD_ROWS = 10_000
FEW_CLASSES = 128  # of a head, for which a byte suffices
GROUP_ROWS, GROUP_BYTES = 1000, 16 << 20  # a row group ends at whichever comes first


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
        integer = pa.int8() if max(len(head.classes) for head in heads) <= FEW_CLASSES else pa.int16()
        for name, kind, dtype in (("labels", integer, str(integer)), ("named", pa.bool_(), "bool")):
            fields.append(pa.field(name, pa.list_(kind)))
            features[name] = {"feature": {"dtype": dtype, "_type": "Value"}, "_type": "Sequence"}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


@dataclass(frozen=True)
class Row:
    """One picture to write: uint8 (H, W) or (H, W, 3), its name in the source, what it is called and what it shows.

    pixels: None where `encoded` alone is at hand.
    variant: 0 is the picture as it is; others are crops of it. encoded: what `Encoded.of` makes of the pixels, where
        that was done before.
    """

    pixels: npt.NDArray[np.uint8] | None
    path: str
    caption: str
    labels: tuple[int, ...]
    mentioned: tuple[bool, ...]
    variant: int = 0
    encoded: Encoded | None = None

    def encoding(self) -> Encoded:
        """What is written of the pixels."""
        if self.encoded is None:
            assert self.pixels is not None
            return Encoded.of(self.pixels)
        return self.encoded

    def picture(self) -> npt.NDArray[np.uint8]:
        """The pixels, uint8 (H, W) or (H, W, 3)."""
        return png_pixels(self.encoding().png) if self.pixels is None else self.pixels


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
        encoded = row.encoding()
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
