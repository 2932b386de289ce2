"""A picture that was made again, beside the file it was made from."""

from pathlib import Path

import torch
from torch import Tensor

from darkroom.inference.editing import as_pictures
from darkroom.inference.record_text import open_picture

IDENTICAL = "the same file, to the byte"


def compared(picture: Path, out: Path, again: Tensor) -> str:
    """How the file `out` of the pixels `again`, uint8 (C, H, W), differs from the picture."""
    if out.read_bytes() == picture.read_bytes():
        return IDENTICAL
    opened = open_picture(picture)
    if (size := (opened.height, opened.width)) != again.shape[1:]:
        drawn = f"{again.shape[2]} x {again.shape[1]}"
        return f"{drawn} pixels, but {picture} has {size[1]} x {size[0]}: it was changed since it was drawn"
    before = as_pictures(opened, len(again))[0]
    apart = int((torch.maximum(before, again) - torch.minimum(before, again)).max())
    return f"differs, by {apart} grey levels at most" if apart else "the same pixels"
