"""Tensors in files of other tools, safely: safetensors, and PyTorch checkpoints without their code."""

import math
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from darkroom.core.artifact import FETCH
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import HEADER_BYTES, PICKLE_BYTES, TENSORS
from darkroom.core.tensors import check_finite
from darkroom.core.text import printable

ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how PyTorch's checkpoints begin, since 1.6 and before
SAFETENSORS, CHECKPOINTS = (".safetensors",), (".ckpt", ".pt", ".pth", ".bin")
UNREADABLE = (SafetensorError, OSError, ValueError)  # what a file raises that is not safetensors, or is gone
CODE = re.compile(r"(?:Unsupported global: GLOBAL|Unsupported class|unsupported GLOBAL) (\S+)")  # PyTorch's words
MAKERS_OF_BYTES = ("bytearray",)  # what PyTorch lets a checkpoint call that fills memory by a number alone
OLD_PICKLES = 4  # that a checkpoint of before 1.6 begins with: a mark, a version, a system, its content
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
SHOWN = 6  # keys that a message names


class _Inert:
    """Stands for a class that a checkpoint mentions and whose code is neither wanted nor run."""


# The published Stable Diffusion checkpoints name this class as a key of a dictionary; it holds no weights.
MENTIONED: list[Any] = [(_Inert, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")]


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file: shapes at once, values when asked for.

    shapes: {key: shape}. read: key -> its tensor, of the file's own dtype, or what is made of that; a DarkroomError
    where the file is no longer the one that was opened.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    read: "Read"

    @property
    def numbers(self) -> int:
        """How many there are in all tensors, as far as the file can hold them: each takes two bytes or more."""
        claimed = sum(map(math.prod, self.shapes.values()))
        return min(claimed, self.path.stat().st_size) if self.path.is_file() else claimed

    def float32(self, key: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """The tensor as fp32, exact from fp16 and bf16; or as that is rounded to `dtype`, without a copy in between.

        Raises:
            DarkroomError: it is not a floating-point number of at most 32 bits, or not finite.
        """

        def checked(value: Tensor) -> Tensor:
            if value.layout != torch.strided or value.device.type != "cpu":
                raise DarkroomError(f"{self.path}: {key} is not a plain tensor; save it dense, on the CPU")
            if value.dtype not in (torch.float32, torch.float16, torch.bfloat16):
                raise DarkroomError(
                    f"{self.path}: {key} is of type {str(value.dtype).removeprefix('torch.')}; "
                    "convert the file to fp32, fp16 or bf16"
                )
            check_finite(value, f"{self.path}: {key}", FETCH)
            return value.to(dtype)

        return self.read(key, checked)

    def number(self, key: str) -> float:
        """The only number of a tensor, which may also be an integer.

        Raises:
            DarkroomError: see `float32`.
        """
        value = self.read(key)
        if value.dtype in INTEGERS and value.layout == torch.strided and value.device.type == "cpu":
            return float(value.item())
        return float(self.float32(key).item())


class Read(Protocol):
    """Reads a tensor of a checkpoint."""

    def __call__(self, key: str, made: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Tensor:
        """What is made of the tensor, which need not be there any longer afterwards."""


def in_memory(tensors: Mapping[str, Tensor]) -> Read:
    """Reads tensors that are there."""

    def read(key: str, made: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Tensor:
        return made(tensors[key])

    return read


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
        with path.open("rb") as start:
            header = min(int.from_bytes(start.read(8), "little"), opened[0])  # a longer one is refused below
        HEADER_BYTES.check(f"{path}: size of its header", header, FETCH)
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118, no mapping
    except UNREADABLE as error:
        raise DarkroomError(f"{path}: not a readable safetensors file ({_line(error)}); fetch it again") from None
    TENSORS.check(f"{path}: number of tensors", len(shapes), FETCH)

    def read(key: str, made: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Tensor:
        """A copy; with it the file's mapping ends, whose pages would stay in memory beside what is made of them."""
        try:
            if _state(path) == opened:
                with safe_open(path, framework="pt") as file:
                    mapped: Tensor = file.get_tensor(key)
                    found = made(mapped)
                    return found.clone() if found.data_ptr() == mapped.data_ptr() else found
        except UNREADABLE:
            pass
        raise DarkroomError(f"{path}: has changed since it was opened; leave it as it is, and begin again")

    return Checkpoint(path, shapes, read)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _pickled(path: Path) -> Checkpoint:
    _check_pickles(path)
    try:
        with torch.serialization.safe_globals(MENTIONED):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn file fails in many ways
        if code := CODE.search(" ".join(str(error).split())):
            raise DarkroomError(
                f"{path}: holds code ({printable(code[1])}), which is never run; fetch the model as .safetensors"
            ) from None
        if "Weights only load failed" in str(error):  # what follows advises to run what is in the file
            raise DarkroomError(
                f"{path}: holds more than weights, which is never read; fetch it as .safetensors"
            ) from None
        raise DarkroomError(f"{path}: not a readable checkpoint ({_line(error)}); fetch it again") from None
    tensors, size = _tensors(found), path.stat().st_size
    TENSORS.check(f"{path}: number of tensors", len(tensors), FETCH)
    for key, value in tensors.items():
        if value.layout == torch.strided and value.device.type == "cpu":
            stored = value.untyped_storage().nbytes()
            if stored > size or value.numel() * value.element_size() > stored:
                raise DarkroomError(
                    f"{path}: {printable(key)} claims {value.numel():,} numbers, more than the file "
                    f"holds; fetch it again"
                )
    if not tensors:
        raise DarkroomError(f"{path}: holds no weights; give a file with a state_dict")
    return Checkpoint(path, {key: tuple(value.shape) for key, value in tensors.items()}, in_memory(tensors))


def _check_pickles(path: Path) -> None:
    """Refuse a checkpoint whose description would fill memory: unpacked, or by a number in it.

    Raises:
        DarkroomError: names the file and what it holds.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if entry.compress_type != zipfile.ZIP_STORED:
                        raise DarkroomError(
                            f"{path}: {printable(entry.filename)} is compressed to {entry.compress_size:,} of "
                            f"{entry.file_size:,} bytes, which PyTorch never does; fetch the model as .safetensors"
                        )
                    if entry.filename.endswith("data.pkl"):
                        PICKLE_BYTES.check(f"{path}: size of {printable(entry.filename)}", entry.file_size, FETCH)
                        with archive.open(entry) as file:
                            _check_calls(path, file)
        else:
            with path.open("rb") as file:
                for _ in range(OLD_PICKLES):
                    _check_calls(path, file)
    except DarkroomError:
        raise
    except Exception:  # what cannot be taken apart is told by who reads it next
        return


def _check_calls(path: Path, file: IO[bytes]) -> None:
    for _, said, offset in pickletools.genops(file):
        if offset is not None and offset > PICKLE_BYTES.most:
            PICKLE_BYTES.check(f"{path}: size of what is not a weight", offset, FETCH)
        if isinstance(said, str) and said.rpartition(" ")[2] in MAKERS_OF_BYTES:
            raise DarkroomError(
                f"{path}: holds {printable(said)}, which is not a weight; fetch the model as .safetensors"
            )


def _tensors(found: Any) -> dict[str, Tensor]:
    inner = found.get("state_dict", found) if isinstance(found, dict) else {}
    if not isinstance(inner, Mapping):
        return {}
    return {key: value for key, value in inner.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _line(error: Exception) -> str:
    return printable(" ".join(str(error).split()) or type(error).__name__)


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
    return ", ".join(map(printable, names[:SHOWN])) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
