"""Tensors that several processes hold parts of, in a folder of safetensors files: one for each process.

The storage is PyTorch's, `torch.distributed.checkpoint` in Hugging Face's format: each file names what it holds of
which tensor and from where on, so that any number of processes can read it, and nothing in it is executed.
"""

import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from darkroom.core.errors import DarkroomError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.device_mesh import DeviceMesh

FILES = "*.safetensors"


def is_sharded(tensor: "Tensor") -> bool:
    """Whether other processes hold parts of it (a DTensor)."""
    return hasattr(tensor, "full_tensor")


def save_shards(folder: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Write each process's part of `tensors`, by as many files; what all hold whole is written once.

    All processes must call it, with the same names.

    Raises:
        OSError: a process could not write; the same in all.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        with _in_silence():
            writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
            save(dict(tensors), storage_writer=writer)
    except CheckpointException as error:
        failures = [failure for failure, _ in error.failures.values()]
        raise next((f for f in failures if isinstance(f, OSError)), failures[0]) from None


def load_shards(folder: Path, sharded: Callable[[str, int], bool], mesh: "DeviceMesh | None") -> dict[str, "Tensor"]:
    """All tensors in the safetensors files of a folder, whoever wrote them.

    Args:
        sharded: (name, dimensions) -> whether this process is to hold a part of it only, where there is a mesh.
        mesh: of the processes, all of which must call it; None: this process reads by itself.

    Raises:
        DarkroomError: a file cannot be read.
    """
    from safetensors import SafetensorError
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.tensor import Shard, empty

    try:
        with _in_silence():
            reader = HuggingFaceStorageReader(str(folder))
            tensors: dict[str, Any] = {}
            for name, found in reader.read_metadata().state_dict_metadata.items():
                assert isinstance(found, TensorStorageMetadata)
                if mesh is not None and sharded(name, len(found.size)):
                    shape, dtype = found.size, found.properties.dtype
                    tensors[name] = empty(*shape, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
                else:
                    tensors[name] = torch.empty(found.size, dtype=found.properties.dtype)
            load(tensors, storage_reader=reader, no_dist=mesh is None)
    except (SafetensorError, CheckpointException, OSError, KeyError) as error:
        raise DarkroomError(f"{folder}: cannot be read ({' '.join(str(error).split())[:300]})") from None
    return tensors


def names_of_sharded(tensors: Mapping[str, "Tensor"]) -> Collection[str]:
    """Which of them are sharded."""
    return [name for name, tensor in tensors.items() if is_sharded(tensor)]


@contextmanager
def _in_silence() -> Iterator[None]:
    """Without remarks on PyTorch's own insides, and on a single process that reads alone."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
