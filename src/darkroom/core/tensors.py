"""Pictures as tensors: uint8 in [0, 255] at rest, float in [-1, 1] at work."""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from darkroom.core.artifact import atomic_path
from darkroom.core.errors import DarkroomError

RESIDENT_BYTES = 8 * 2**30  # a table larger than this stays in the host's memory, and only its rows are copied
MIN_SQUARED_ERROR = 1e-12  # an exact reconstruction is reported as 126 dB


def sent(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on `device`; this process does not wait until it is there."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def to_float(images: Tensor) -> Tensor:
    """uint8 [0, 255] -> float32 [-1, 1], same shape."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 [0, 255], rounded and clamped (never wrapped), same shape."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def check_finite(values: Tensor, what: str, remedy: str) -> None:
    """Refuse numbers of which one is NaN or infinite."""
    if not values.is_floating_point() or not values.numel():
        return
    low, high = torch.aminmax(values)  # NaN if one is; without memory for an answer to each
    if not bool(low.isfinite() & high.isfinite()):
        bad = int((~values.isfinite()).sum())
        raise DarkroomError(
            f"{what} is not finite: {bad:,} of its {values.numel():,} numbers are NaN or infinite; {remedy}"
        )


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB, of pictures in [-1, 1]."""
    return 10 * math.log10(4.0 / max(mean_squared_error, MIN_SQUARED_ERROR))


def batches(rows: int | Sequence[range], size: int) -> Iterator[Tensor]:
    """The indices 0 … n - 1 in order, int64, `size` at a time; of ranges those in them, none of two in one batch."""
    for run in [range(rows)] if isinstance(rows, int) else rows:
        for start in range(run.start, run.stop, size):
            yield torch.arange(start, min(start + size, run.stop))


def shares(sizes: Sequence[int], n: int) -> list[int]:
    """How many of n, or of all where there are no more, each of several parts gives: its share by its size."""
    total = sum(sizes)
    upto = [-(-min(n, total) * end // total) for end in accumulate(sizes)] if total else [0 for _ in sizes]
    return [end - start for start, end in pairwise([0, *upto])]


def count_rows(rows: int | Sequence[range]) -> int:
    """How many indices `batches` gives."""
    return rows if isinstance(rows, int) else sum(map(len, rows))


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (1 or 3, H, W) -> a PIL picture of mode L or RGB."""
    array = image.cpu().numpy()
    return Image.fromarray(array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0).copy())


def save_png(path: Path | str, image: Tensor | Image.Image, scale: int = 1) -> None:
    """Write a picture as PNG, whole or not at all, each pixel enlarged to scale x scale."""
    picture = image if isinstance(image, Image.Image) else to_pil(image)
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    with atomic_path(path) as beside:
        picture.save(beside, format="PNG", optimize=False)
