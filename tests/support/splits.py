"""Splits of pictures at hand, for what reads prepared ones."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.data.prepared import Info


@dataclass
class Split:
    """What a PreparedSplit gives, of pictures at hand."""

    name: str
    pictures: Tensor
    captions: list[str]
    labels: Tensor
    mentioned: Tensor
    info: Info

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def runs(self) -> list[range]:
        return [range(len(self))]

    @property
    def first_rows(self) -> Tensor:
        return torch.arange(len(self))

    def uncropped(self) -> Tensor:
        return self.first_rows

    def images(self, indices: Tensor | None = None) -> Tensor:
        return self.pictures if indices is None else self.pictures[indices]

    def squares(self, indices: Tensor) -> Tensor:
        return self.images(indices)

    def by_size(self, indices: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.arange(len(indices)), self.images(indices)
