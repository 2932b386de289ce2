"""Writing data/prepared: Parquet shards of pictures, captions and labels, and dataset.json at the end."""

import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.config.buckets import Size
from darkroom.data.account import Account
from darkroom.data.buckets import Bucket, Cropped
from darkroom.data.head import Head
from darkroom.data.png import Encoded, png_pixels
from darkroom.data.prepared import PICTURES, Info

COMMON_WORDS = 20
SHARD_ROWS = 10_000
FEW_CLASSES = 128  # of a head, for which a byte suffices
MOST_VARIANTS = 1000  # of a picture
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
    bucket: the number of its size. cropped: the share of the picture's area that was cut off for it.
    number: of the picture in its split; rows of one number and variant have the same pixels. None: a picture of its
        own.
    """

    pixels: npt.NDArray[np.uint8] | None
    path: str
    caption: str
    labels: tuple[int, ...]
    mentioned: tuple[bool, ...]
    variant: int = 0
    encoded: Encoded | None = None
    bucket: int = 0
    cropped: float = 0.0
    number: int | None = None

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
    """Collects rows into row groups, row groups into shards.

    pictures: of each row, a number that rows with the same picture share.
    """

    def __init__(self, folder: Path, schema: pa.Schema, prefix: str) -> None:
        self.folder, self.schema, self.prefix = folder, schema, prefix
        self.rows = 0
        self.pictures = array("q")
        self._shard: pq.ParquetWriter | None = None
        self._group: list[dict[str, Any]] = []
        self._bytes = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, row: dict[str, Any], picture: int | None) -> None:
        self.pictures.append(-1 - self.rows if picture is None else picture)
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
            name = f"{self.prefix}{(self.rows - 1) // SHARD_ROWS:05d}.parquet"
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

    Equal rows in equal order give equal bytes. The rows of a split lie bucket by bucket, each in files of its own.

    sizes: (height, width) of the buckets; none where all pictures are squares.
    """

    sizes: tuple[Size, ...] = ()

    def __init__(
        self, root: Path, source: str, heads: tuple[Head, ...], captions: bool, image_size: int, channels: int
    ) -> None:
        self.root, self.cropped = root, Cropped()
        self.info = Info(source, image_size, channels, {}, (), (), {}, heads, captions)
        self._splits: dict[tuple[str, int], _SplitWriter] = {}
        self._words: Counter[str] = Counter()
        self._sum = np.zeros(channels, np.int64)
        self._squares = np.zeros(channels, np.int64)
        root.mkdir(parents=True, exist_ok=True)

    def add(self, split: str, row: Row) -> None:
        """Append a picture to a split."""
        key = split, row.bucket
        if key not in self._splits:
            schema, prefix = (
                _schema(self.info.heads, self.info.class_labelled),
                f"{row.bucket:03d}-" if self.sizes else "",
            )
            self._splits[key] = _SplitWriter(self.root / split, schema, prefix)
        encoded = row.encoding()
        out: dict[str, Any] = {"image": {"bytes": encoded.png, "path": row.path}, "caption": row.caption}
        if self.info.class_labelled:
            out["label"] = row.labels[0]
        elif self.info.heads:
            out |= {"labels": row.labels, "named": row.mentioned}
        self._splits[key].add(out, None if row.number is None else row.number * MOST_VARIANTS + row.variant)
        if split == "train":
            self._sum += encoded.total
            self._squares += encoded.squares
            if not row.variant:
                self._words.update(row.caption.lower().split())

    @property
    def splits(self) -> dict[str, int]:
        """Rows so far in each split."""
        return self._rows(range(max(1, len(self.sizes))))

    def _rows(self, buckets: Sequence[int]) -> dict[str, int]:
        """Rows so far in each split that are in one of these buckets."""
        found: dict[str, int] = {}
        for (name, bucket), split in sorted(self._splits.items()):
            if bucket in buckets:
                found[name] = found.get(name, 0) + split.rows
        return found

    @property
    def _buckets(self) -> tuple[Bucket, ...]:
        """Those of the sizes that have pictures."""
        return tuple(
            Bucket(*size, rows, self.cropped.pictures.get(i, 0), self.cropped.share_of(i))
            for i, size in enumerate(self.sizes)
            if (rows := self._rows([i]))
        )

    def _write_pictures(self) -> None:
        """Which rows have the same picture, where any do."""
        found: dict[str, npt.NDArray[np.int64]] = {}
        for name in self.splits:
            several = [np.asarray(split.pictures) for (of, _), split in sorted(self._splits.items()) if of == name]
            numbers = np.concatenate([np.where(part < 0, part - (i << 40), part) for i, part in enumerate(several)])
            _, first, which = np.unique(numbers, return_index=True, return_inverse=True)
            found[name] = np.argsort(np.argsort(first))[which].astype(np.int64)
        if any((numbers != np.arange(len(numbers))).any() for numbers in found.values()):
            with (self.root / PICTURES).open("wb") as file:
                np.savez(file, allow_pickle=False, **found)

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
        self._write_pictures()
        side, buckets = self.info.image_size, self._buckets
        train = [(of.splits.get("train", 0), of.height * of.width) for of in buckets]
        n = max(sum(rows * pixels for rows, pixels in train or [(self.splits.get("train", 0), side**2)]), 1)
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
            buckets=buckets,
            cropped_share=self.cropped.mean,
        )
        info.write(self.root)
        return info
