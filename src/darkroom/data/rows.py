"""Tables larger than memory: rows of tensors that lie in one file after the other, read as they are asked for."""

import ctypes
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from darkroom.core.artifact import REPRO, load_tensors
from darkroom.core.errors import DarkroomError
from darkroom.core.tensors import RESIDENT_BYTES

Then = Callable[[Tensor], Tensor]
READ_AHEAD_BYTES = 2**30  # a table up to here is soon in memory, the faster the more is read at once
MADV_RANDOM = 1  # on Linux and macOS


class Rows:
    """The rows of several tensors as one table, which is indexed by row numbers (n,) int64 and copies those rows alone.

    The tensors of a file (`mapped`) are views of a mapping of it: what is read of them lies in the system's page cache,
    from which it is dropped when memory is short, and not in memory of this process.

    Args:
        tensors: (n_i, …) each, all of one dtype and on one device; their rows may differ in shape.
        then: elementwise, what becomes of the rows that are read; the same for a row by itself as for all.
        table_bytes: of the table that these rows are a part of, whose parts are all in use; None: they are all of it.
    """

    def __init__(self, tensors: Sequence[Tensor], then: Then | None = None, table_bytes: int | None = None) -> None:
        self.tensors, self._then = tuple(tensors), then
        self._table_bytes = self.nbytes if table_bytes is None else table_bytes
        self._ends = torch.tensor([len(tensor) for tensor in tensors]).cumsum(0)

    @classmethod
    def of(cls, table: "Tensor | Rows") -> "Rows":
        """A table in memory, or one that has rows already."""
        return table if isinstance(table, Rows) else cls([table])

    @classmethod
    def mapped(cls, files: Sequence[Path], name: str) -> "Rows":
        """The tensor of this name in each file, mapped.

        Raises:
            DarkroomError: a file is missing, torn, or has none of this name.
        """
        loaded = [load_tensors(file) for file in files]
        for file, found in zip(files, loaded, strict=True):
            if name not in found:
                raise DarkroomError(f"{file}: has no {name!r}, only {', '.join(sorted(found))}; {REPRO}")
        return cls([found[name] for found in loaded])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: Tensor) -> Tensor:
        found = self._read(rows)
        return found if self._then is None else self._then(found)

    def _read(self, rows: Tensor) -> Tensor:
        if len(self.tensors) == 1:
            return self.tensors[0][rows]
        if not len(rows):
            return self.tensors[0].new_empty((0, *self.shape))
        owners = torch.searchsorted(self._ends, rows, right=True)
        starts = torch.cat([self._ends.new_zeros(1), self._ends])
        pairs = zip(owners.tolist(), (rows - starts[owners]).tolist(), strict=True)
        found = [self.tensors[owner][row] for owner, row in pairs]  # views: of most shards of many, one row at most
        if len(shapes := {row.shape for row in found}) > 1:
            self._refuse(map(tuple, shapes))
        return torch.stack(found)

    def _refuse(self, shapes: Iterable[tuple[int, ...]]) -> NoReturn:
        raise DarkroomError(
            f"rows of the shapes {', '.join(map(str, sorted(shapes)))} do not go into one batch; {REPRO}"
        )

    def then(self, then: Then) -> "Rows":
        """The same rows, and `then` of what is read of them."""
        return Rows(self.tensors, then, self._table_bytes)

    def in_memory(self) -> Tensor:
        """All rows, in memory."""
        return torch.cat([tensor if self._then is None else self._then(tensor) for tensor in self.tensors])

    def resident(self, device: torch.device) -> "Rows":
        """The same on `device` where it, or what it is a part of, is not too large for that, else where it is."""
        if device.type == self.device.type or self._table_bytes > RESIDENT_BYTES:
            return self
        return Rows([self.in_memory().to(device)], table_bytes=self._table_bytes)

    def by_shape(self) -> list[tuple[Tensor, "Rows"]]:
        """The numbers (n,) int64 of the rows of each shape, and those rows as a table of their own, in the order in
        which shapes first come."""
        found: dict[tuple[int, ...], list[int]] = {}
        for i, tensor in enumerate(self.tensors):
            found.setdefault(tuple(tensor.shape[1:]), []).append(i)
        if len(found) == 1:
            return [(torch.arange(len(self)), self)]
        starts = [0, *self._ends.tolist()]
        return [
            (
                torch.cat([torch.arange(starts[i], starts[i + 1]) for i in which]),
                Rows([self.tensors[i] for i in which], self._then, self._table_bytes),
            )
            for which in found.values()
        ]

    def at_random(self) -> "Rows":
        """The same, whose rows will be asked for in no order: of a large table the system then reads those rows alone,
        where it would read 128 KiB with each otherwise. A hint, which some systems do not take."""
        if self.device.type == "cpu" and self._table_bytes > READ_AHEAD_BYTES:
            for tensor in self.tensors:
                _advise_random(tensor)
        return self

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of a row.

        Raises:
            DarkroomError: the rows have several.
        """
        shapes = {tuple(tensor.shape[1:]) for tensor in self.tensors}
        if len(shapes) > 1:
            self._refuse(shapes)
        return shapes.pop()

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensors."""
        return self.tensors[0].dtype

    @property
    def device(self) -> torch.device:
        """Of the tensors."""
        return self.tensors[0].device

    @property
    def nbytes(self) -> int:
        """Of all tensors, wherever they are."""
        return sum(tensor.nbytes for tensor in self.tensors)


def _advise_random(tensor: Tensor) -> None:
    if os.name != "posix":
        return
    start = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    length = tensor.data_ptr() + tensor.nbytes - start
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), MADV_RANDOM)
