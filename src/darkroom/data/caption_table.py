"""Captions of a data set as Arrow columns: a few bytes beside their letters, where Python's strings take a hundred."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from darkroom.core.artifact import REPRO
from darkroom.core.errors import DarkroomError

COLUMN = "caption"
BATCH = 4096  # captions of a record batch
TEXT = pa.large_string()  # whose columns may hold more than 2 GiB


def distinct(captions: Mapping[str, Sequence[str] | pa.ChunkedArray]) -> tuple[pa.Array, dict[str, Tensor]]:
    """The distinct captions of all splits in the order of their letters, and of each split (N,) int64, each sample's
    row among them.

    Raises:
        DarkroomError: there is no caption at all.
    """
    columns = {name: _column(split) for name, split in captions.items()}
    texts = pc.unique(pa.chunked_array([chunk for column in columns.values() for chunk in column.chunks], TEXT))
    if not len(texts):
        raise DarkroomError("setup_text_encoder: the data has no captions; use kind class or none, or captioned data")
    texts = texts.take(pc.sort_indices(texts))
    rows = {name: pc.index_in(column, value_set=texts).to_numpy() for name, column in columns.items()}
    return texts, {name: torch.from_numpy(found.astype("int64")) for name, found in rows.items()}


def _column(captions: Sequence[str] | pa.ChunkedArray) -> pa.ChunkedArray:
    return captions.cast(TEXT) if isinstance(captions, pa.ChunkedArray) else pa.chunked_array([captions], TEXT)


def batches_of(texts: pa.Array, size: int) -> Iterator[list[str]]:
    """The captions, so many at a time."""
    for start in range(0, len(texts), size):
        yield texts.slice(start, size).to_pylist()


def write_captions(path: Path, texts: pa.Array) -> None:
    """Write captions as an Arrow file."""
    schema = pa.schema([pa.field(COLUMN, TEXT)])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for start in range(0, len(texts), BATCH):
            writer.write_batch(pa.record_batch([texts.slice(start, BATCH)], schema=schema))


def read_captions(path: Path, rows: Sequence[int]) -> list[str]:
    """The captions with these numbers, which alone are read.

    Raises:
        DarkroomError: the file is missing or torn.
    """
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            column = reader.read_all()[COLUMN]
            return [column[row].as_py() for row in rows]
    except FileNotFoundError:
        raise DarkroomError(f"{path}: no such file; {REPRO}") from None
    except (pa.ArrowException, OSError, LookupError) as error:
        raise DarkroomError(f"{path}: not readable captions ({error}); {REPRO}") from None
