"""Splits of pictures at hand, for what reads prepared ones."""

from dataclasses import dataclass

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

    def images(self, indices: Tensor | None = None) -> Tensor:
        return self.pictures if indices is None else self.pictures[indices]
