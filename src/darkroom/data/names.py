"""What the pictures of prepared data are called where they came from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


def names_of(split: Path, rows: Sequence[int]) -> list[str]:
    """The name of the picture of each of `rows`, in their order: a file's path below the root of its source.

    Reads the row groups alone that hold one of them.

    Args:
        split: the folder of a split in prepared data, such as data/prepared/train.
    """
    files = [pq.ParquetFile(shard, memory_map=True) for shard in sorted(split.glob("*.parquet"))]
    groups = [(file, i) for file in files for i in range(file.metadata.num_row_groups)]
    starts = np.cumsum([0, *(file.metadata.row_group(i).num_rows for file, i in groups)])
    found: dict[int, str] = {}
    wanted = np.unique(np.asarray(rows, dtype=np.int64))
    of = np.searchsorted(starts, wanted, side="right") - 1
    for group in np.unique(of):
        file, i = groups[group]
        paths = file.read_row_group(i, columns=["image.path"])["image"].combine_chunks().field("path").to_pylist()
        found |= {row: paths[row - starts[group]] for row in wanted[of == group].tolist()}
    return [found[int(row)] for row in rows]
