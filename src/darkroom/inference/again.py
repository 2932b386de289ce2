"""A picture that was made again, beside the file it was made from."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from darkroom.core.artifact import file_hash
from darkroom.core.errors import DarkroomError
from darkroom.inference.editing import as_pictures
from darkroom.inference.record import Record
from darkroom.inference.record_text import open_picture
from darkroom.interop.lora import LoRA, adapter_file

IDENTICAL = "the same file, to the byte"


def adapters_of(picture: Path, record: Record, elsewhere: Sequence[Path]) -> list[LoRA]:
    """The adapters that a picture was drawn with, found by their content where the record says or elsewhere.

    Raises:
        DarkroomError: one is at neither.
    """
    moved = {file_hash(file): file for file in map(adapter_file, elsewhere)}
    found = []
    for adapter in record.adapters:
        path = moved.get(adapter.md5, Path(adapter.file))
        if not path.is_file() or file_hash(path) != adapter.md5:
            lies = f"{path} is another file" if path.is_file() else f"{path} is not there"
            raise DarkroomError(
                f"{picture}: was drawn with the adapter {adapter.md5}, and {lies}; name that file with --lora FILE"
            )
        found.append(LoRA(path, adapter.strength))
    return found


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
