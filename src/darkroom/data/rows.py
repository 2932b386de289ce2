"""Tables larger than memory: rows of tensors that lie in one file after the other, read as they are asked for."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from darkroom.core.artifact import REPRO, load_tensors
from darkroom.core.errors import DarkroomError
from darkroom.core.tensors import RESIDENT_BYTES

Then = Callable[[Tensor], Tensor]


class Rows:
    """The rows of several tensors as one table, which is indexed by row numbers (n,) int64 and copies those rows alone.

    The tensors of a file (`mapped`) are views of a mapping of it: what is read of them lies in the system's page cache,
    from which it is dropped when memory is short, and not in memory of this process.

    Args:
        tensors: (n_i, …) each, all of one dtype and on one device; their rows may differ in shape.
        then: elementwise, what becomes of the rows that are read; the same for a row by itself as for all.
    """

    def __init__(self, tensors: Sequence[Tensor], then: Then | None = None) -> None:
        self.tensors, self._then = tuple(tensors), then
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
        owners = torch.searchsorted(self._ends, rows, right=True)
        out = self.tensors[0].new_empty((len(rows), *self.shape))
        for owner in sorted(set(owners.tolist())):
            here = owners == owner
            out[here] = self.tensors[owner][rows[here] - (self._ends[owner] - len(self.tensors[owner]))]
        return out

    def then(self, then: Then) -> "Rows":
        """The same rows, and `then` of what is read of them."""
        return Rows(self.tensors, then)

    def in_memory(self) -> Tensor:
        """All rows, in memory."""
        return torch.cat([tensor if self._then is None else self._then(tensor) for tensor in self.tensors])

    def resident(self, device: torch.device) -> "Rows":
        """The same on `device` where it is not too large for that, else where it is."""
        if device.type == self.device.type or self.nbytes > RESIDENT_BYTES:
            return self
        return Rows([self.in_memory().to(device)])

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of a row.

        Raises:
            DarkroomError: the rows have several.
        """
        shapes = sorted({tuple(tensor.shape[1:]) for tensor in self.tensors})
        if len(shapes) > 1:
            raise DarkroomError(f"rows of the shapes {', '.join(map(str, shapes))} do not go into one batch; {REPRO}")
        return shapes[0]

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
