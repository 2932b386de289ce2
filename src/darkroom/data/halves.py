"""Every split cut into two halves by the hash of the pixels, for cross-fitting (Chernozhukov et al. 2018, section 3).

What is fitted to one half is measured on the other. Equal pixels fall into the same half, whichever split they are in;
so do all variants of a training picture, for prepare_data takes no others (see data.crops).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from darkroom.core.tensors import batches
from darkroom.data.fingerprint import fingerprint, half
from darkroom.data.prepared import PreparedSplit

ROWS_AT_ONCE = 1000


def half_of(images: Tensor) -> Tensor:
    """Pictures uint8 (N, C, H, W) -> the half, 0 or 1, that each belongs to by its fingerprint: (N,) int64."""
    pixels = images.permute(0, 2, 3, 1).numpy()
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    return torch.tensor([half(fingerprint(np.ascontiguousarray(one))) for one in pixels], dtype=torch.int64)


def halves(split: PreparedSplit, chosen: Tensor | None = None) -> Tensor:
    """The half of each picture of a split, or of the rows `chosen` (N,) of it: (N,) int64."""
    chosen = torch.arange(len(split)) if chosen is None else chosen
    # Filled, not joined: pieces kept between the pictures of each batch would keep the pictures' memory too.
    found = torch.empty(len(chosen), dtype=torch.int64)
    for rows in batches(len(chosen), ROWS_AT_ONCE):
        for here, pictures in split.by_size(chosen[rows]):
            found[rows[here]] = half_of(pictures)
    return found


class Chosen:
    """Chosen pictures of one or more splits, one after the other, read as squares.

    Args:
        parts: splits, each with the rows (n,) int64 that are chosen of it.
    """

    def __init__(self, chosen: Sequence[tuple[PreparedSplit, Tensor]]) -> None:
        self._chosen = chosen
        self._ends = torch.tensor([len(rows) for _, rows in chosen]).cumsum(0)
        self.captions: list[str] = [split.captions[i] for split, rows in chosen for i in rows.tolist()]
        self.labels = torch.cat([split.labels[rows] for split, rows in chosen])
        self.mentioned = torch.cat([split.mentioned[rows] for split, rows in chosen])

    def __len__(self) -> int:
        return len(self.captions)

    def images(self, indices: Tensor | Sequence[int] | None = None) -> Tensor:
        """Pictures `indices` (all without it): uint8 (n, C, H, W)."""
        wanted = torch.arange(len(self)) if indices is None else torch.as_tensor(indices, dtype=torch.int64)
        part = torch.searchsorted(self._ends, wanted, right=True)
        info = self._chosen[0][0].info
        out = torch.empty(len(wanted), info.channels, info.image_size, info.image_size, dtype=torch.uint8)
        for k, (split, rows) in enumerate(self._chosen):
            here = (part == k).nonzero().flatten()
            if len(here):
                out[here] = split.squares(rows[wanted[here] - (self._ends[k] - len(rows))])
        return out
