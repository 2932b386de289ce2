"""Too little memory, in one line: what was used at most, and what uses less."""

import errno
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from darkroom.config.autoencoder import TrainedVAE
from darkroom.config.params import Params
from darkroom.core.checkpoint import Checkpoints
from darkroom.core.device import runtime
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import readable_size

# How allocators say it that have no exception of their own: PyTorch's for CPUs (Linux, Windows), CUDA's libraries.
SAID = re.compile(r"out of memory|can(no|')t allocate|not enough memory|ALLOC_FAILED|bad_alloc", re.IGNORECASE)
UNDETERMINED = "does not have a deterministic implementation"
KIBI = 1 if sys.platform == "darwin" else 1024  # bytes, in which the system counts a process's memory
RECOMPUTED = ("unet_2d_condition",)  # kinds of denoisers whose blocks can be computed again


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that memory could not be had, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError) and SAID.search(str(error)):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def remedies(stage: str, params: Params) -> list[str]:
    """What lowers the memory that a stage needs, by what the parameters and the runtime settings are now.

    First what changes no result, then what changes rounding alone, then the rest.
    """
    section = getattr(params, stage, None)
    if section is None or stage == "prepare_data":
        return ["a lower prepare_data.limit or image_size"]
    found = []
    recomputes = isinstance(section, TrainedVAE)
    recomputes |= stage == "train_unet" and params.train_unet.unet.kind in RECOMPUTED
    if recomputes and not runtime().checkpoint_activations:
        found.append("DARKROOM_CHECKPOINT_ACTIVATIONS=1 (the same numbers)")
    divisible = stage == "train_unet" and params.train_unet.optimizer.kind == "adamw"
    if divisible and runtime().processes > 1 and runtime().strategy != "fsdp2":
        found.append("DARKROOM_STRATEGY=fsdp2 (weights divided among the processes; the same step up to rounding)")
    accumulation, size = getattr(section, "accumulation", None), getattr(section, "batch_size", 1)
    if accumulation is not None and accumulation < size:
        found.append(f"{stage}.accumulation: {min(2 * accumulation, size)} (the same step up to rounding)")
    if getattr(section, "precision", None) == "fp32":
        found.append(f"{stage}.precision: bf16")
    if size > 1:
        found.append(f"{stage}.batch_size below {size}")
    return found or [f"smaller networks in {stage}"]


def peak(device: torch.device) -> tuple[float, float]:
    """(bytes used at most by this process so far, bytes that there are) of a device's memory."""
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
        return float(torch.cuda.max_memory_allocated(device)), float(there)
    if device.type == "mps":
        return float(torch.mps.driver_allocated_memory()), float(torch.mps.recommended_max_memory())
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    there = psutil.virtual_memory().total
    used = KIBI * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(used), float(there if allowed == resource.RLIM_INFINITY else min(there, allowed))


@contextmanager
def explain_shortages(stage: str, params: Params, device: torch.device, checkpoints: Checkpoints) -> Iterator[None]:
    """Around the work of a stage: a lack of memory or of a kernel becomes one line.

    Raises DarkroomError: memory ran out; or there is no deterministic kernel for something, and it was to be so.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise DarkroomError(_line(stage, params, device, checkpoints)) from None
        if isinstance(error, RuntimeError) and UNDETERMINED in str(error):
            what = str(error).split(UNDETERMINED)[0].split()[-1]
            raise DarkroomError(
                f"deterministic = true: {what} has no such form here; set DARKROOM_DETERMINISTIC=0"
            ) from None
        raise


def _line(stage: str, params: Params, device: torch.device, checkpoints: Checkpoints) -> str:
    used, there = peak(device)
    saved = checkpoints.newest
    again = "nothing is saved yet" if saved is None else f"step {saved} is saved"
    on = "" if saved is None else "; dvc repro resumes from it with the same parameters, anew with others"
    return (
        f"out of memory on {device}: {readable_size(used)} of {readable_size(there)} used at most; {again}{on}; "
        f"less is needed with {', or '.join(remedies(stage, params))} (darkroom params check --memory estimates it)"
    )
