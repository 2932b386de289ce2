"""Tensors in files of other tools, safely: safetensors, and PyTorch checkpoints without their code."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from darkroom.core.artifact import FETCH
from darkroom.core.errors import DarkroomError
from darkroom.core.tensors import check_finite

ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how PyTorch's checkpoints begin, since 1.6 and before
SAFETENSORS, CHECKPOINTS = (".safetensors",), (".ckpt", ".pt", ".pth", ".bin")
UNREADABLE = (SafetensorError, OSError, ValueError)  # what a file that is no safetensors, or gone, ends in
CODE = re.compile(r"(?:Unsupported global: GLOBAL|Unsupported class|unsupported GLOBAL) (\S+)")  # PyTorch's words
SHOWN = 6  # keys that a message names


class _Inert:
    """Stands for a class that a checkpoint mentions and whose code is neither wanted nor run."""


# The published Stable Diffusion checkpoints name this class as a key of a dictionary; it holds no weights.
MENTIONED: list[Any] = [(_Inert, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")]


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file: shapes at once, values when asked for.

    shapes: {key: shape}. read: key -> its tensor, of the file's own dtype; a DarkroomError where the file is no longer
    the one that was opened.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], Tensor]

    def float32(self, key: str) -> Tensor:
        """The tensor as fp32, in which everything here is kept; exact from fp16 and bf16.

        Raises:
            DarkroomError: it is no floating-point number of at most 32 bits, or not finite.
        """
        value = self.read(key)
        if value.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise DarkroomError(
                f"{self.path}: {key} is of type {str(value.dtype).removeprefix('torch.')}; "
                "convert the file to fp32, fp16 or bf16"
            )
        check_finite(value, f"{self.path}: {key}", FETCH)
        return value.float()


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a .safetensors file, or a .ckpt without running code that it may hold.

    Raises:
        DarkroomError: the file is missing, truncated, of another kind than its name says, or holds code.
    """
    if not path.is_file():
        raise DarkroomError(f"{path}: no such file; give a .safetensors or .ckpt file, or a diffusers folder")
    if path.suffix not in SAFETENSORS + CHECKPOINTS:
        raise DarkroomError(f"{path}: neither .safetensors nor .ckpt by its name; give a file of one of these kinds")
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix in SAFETENSORS:
        if start.startswith((ZIP, PICKLE)) and start[8:] != b"{":  # safetensors: 8 bytes of length, then JSON
            raise DarkroomError(
                f"{path}: is a pickle that calls itself safetensors; do not trust it, and fetch the model elsewhere"
            )
        return _safetensors(path)
    return _pickled(path)


def _safetensors(path: Path) -> Checkpoint:
    try:
        opened = _state(path)
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118, no mapping
    except UNREADABLE as error:
        raise DarkroomError(f"{path}: not a readable safetensors file ({_line(error)}); fetch it again") from None

    def read(key: str) -> Tensor:
        """A copy; with it the file's mapping ends, whose pages would stay in memory beside what is made of them."""
        try:
            if _state(path) == opened:
                with safe_open(path, framework="pt") as file:
                    tensor: Tensor = file.get_tensor(key).clone()
                    return tensor
        except UNREADABLE:
            pass
        raise DarkroomError(f"{path}: has changed since it was opened; leave it as it is, and begin again")

    return Checkpoint(path, shapes, read)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _pickled(path: Path) -> Checkpoint:
    try:
        with torch.serialization.safe_globals(MENTIONED):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn file fails in many ways
        if code := CODE.search(_line(error)):
            raise DarkroomError(
                f"{path}: holds code ({code[1]}), which is never run; fetch the model as .safetensors"
            ) from None
        if "Weights only load failed" in str(error):  # what follows advises to run what is in the file
            raise DarkroomError(
                f"{path}: holds more than weights, which is never read; fetch it as .safetensors"
            ) from None
        raise DarkroomError(f"{path}: not a readable checkpoint ({_line(error)}); fetch it again") from None
    tensors = _tensors(found)
    if not tensors:
        raise DarkroomError(f"{path}: holds no weights; give a file with a state_dict")
    return Checkpoint(path, {key: tuple(value.shape) for key, value in tensors.items()}, tensors.__getitem__)


def _tensors(found: Any) -> dict[str, Tensor]:
    inner = found.get("state_dict", found) if isinstance(found, dict) else {}
    if not isinstance(inner, Mapping):
        return {}
    return {key: value for key, value in inner.items() if isinstance(value, Tensor)}


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def check_keys(path: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a file that does not hold exactly the tensors wanted, each of its shape.

    Raises:
        DarkroomError: lists what is missing, unexpected and of another shape.
    """
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    other = sorted(key for key in wanted.keys() & found.keys() if tuple(wanted[key]) != tuple(found[key]))
    faults = []
    for what, keys in (("missing", missing), ("unexpected", unexpected)):
        if keys:
            faults.append(f"{len(keys)} {what} ({some(keys)})")
    if other:
        shapes = [f"{key} is {list(found[key])}, not {list(wanted[key])}" for key in other]
        faults.append(f"{len(other)} of another shape ({some(shapes)})")
    if faults:
        raise DarkroomError(f"{path}: the weights do not fit the network: {', '.join(faults)}; give the file it is for")


def some(names: list[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:SHOWN]) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
