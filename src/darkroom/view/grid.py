"""Many pictures in one: the grids that commands write."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from darkroom.core.tensors import to_pil
from darkroom.view.sheet import Plate, grid


def image_grid(images: Tensor, columns: int, pad: int = 2, background: int = 255) -> Tensor:
    """Tile uint8 images (N, C, H, W) row by row into one uint8 picture (C, H', W') with `pad` pixels between."""
    n, c, h, w = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    out = torch.full((c, rows * (h + pad) + pad, columns * (w + pad) + pad), background, dtype=torch.uint8)
    for i in range(n):
        y, x = pad + (i // columns) * (h + pad), pad + (i % columns) * (w + pad)
        out[:, y : y + h, x : x + w] = images[i]
    return out


def captioned_grid(images: Tensor, captions: Sequence[str], columns: int, scale: int) -> Tensor:
    """uint8 images (N, C, H, W), N / len(captions) of each caption, in one picture (3, H', W') with captions below.

    Args:
        columns: images side by side. scale: pixels of a side for each pixel of an image.
    """
    each = len(images) // len(captions)
    plates = [
        Plate([to_pil(image) for image in images[i * each : (i + 1) * each]], caption)
        for i, caption in enumerate(captions)
    ]
    across, plates_across = (1, columns) if each == 1 else (columns, 1)
    return torch.from_numpy(np.array(grid(plates, across, plates_across, scale))).permute(2, 0, 1).contiguous()
