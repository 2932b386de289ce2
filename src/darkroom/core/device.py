"""Where and how work runs: device, threads, precision. Set by the environment or runtime.yaml, recorded with each run.

Nothing here may change a result by design; what does (precision, seeds, counts) is a parameter.
"""

import os
import platform
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
import yaml

from darkroom.core.errors import DarkroomError

Network = TypeVar("Network", bound=torch.nn.Module)
RUNTIME_FILE = Path("runtime.yaml")
RAY_ADDRESS = re.compile(r"ray://[^/\s]+:\d+")
Compile = Literal["auto", "always", "never"]
Strategy = Literal["none", "ddp", "fsdp2"]
CHOICES = {"compile": get_args(Compile), "strategy": get_args(Strategy)}  # of the settings that are words
PROFILED_PACKAGES = ("torch", "numpy", "pillow", "pyarrow", "safetensors", "tokenizers")


@dataclass(frozen=True)
class Runtime:
    """Where and how to run; see `runtime()`.

    device: auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps.
    threads: CPU threads of PyTorch, of each process; 0 = one per available core, divided among the processes. As many
        processes prepare pictures.
    deterministic: ask PyTorch for deterministic kernels (always so on the CPU).
    checkpoint_minutes: between two checkpoints of a training; more where saving would take above a fiftieth of the
        time. 0: by steps alone.
    checkpoint_steps: between two checkpoints, besides; 0: by the clock alone.
    processes: on this machine, among which the rows of a training's batches, or the shards of latents, text states and
        drawn pictures, are divided; with CUDA, one per device.
    strategy: of several processes: ddp (each holds all weights; gradients are averaged), fsdp2 (weights are divided).
    ray: the Ray cluster that prepares, encodes, embeds and draws: auto (the one that runs here, or that RAY_ADDRESS
        names), or ray://HOST:PORT; empty: none.
    compile: blocks of networks for training on CUDA: auto (long trainings, for it takes minutes), always or never.
    cuda_graphs: record a training's step, or a drawing's, once and replay it, so that nothing waits for the host.
    fused_norms: in training in bf16 on CUDA, compute norms by programs of its own (see `nn.kernels`): quicker.
    checkpoint_activations: compute the blocks of the autoencoder and of a unet_2d_condition again in the backward pass
        rather than keep what they computed: the same numbers, less memory, about a third more time.
    """

    device: str = "auto"
    threads: int = 0
    deterministic: bool = True
    checkpoint_minutes: float = 2.0
    checkpoint_steps: int = 0
    processes: int = 1
    ray: str = ""
    strategy: Strategy = "ddp"
    compile: Compile = "never"
    cuda_graphs: bool = True
    fused_norms: bool = True
    checkpoint_activations: bool = False

    def for_tasks(self) -> "Runtime":
        """The same for a stage whose tasks Ray does: where no number is given, one thread a task, and here too."""
        return replace(self, threads=self.threads or 1) if self.ray else self


def runtime() -> Runtime:
    """The settings of runtime.yaml, if there is one, overridden by DARKROOM_DEVICE, DARKROOM_THREADS and so on.

    Raises DarkroomError: an unknown key or a value of the wrong kind.
    """
    values: dict[str, Any] = {}
    known: dict[str, type] = {f.name: type(getattr(Runtime, f.name)) for f in fields(Runtime)}
    if RUNTIME_FILE.exists():
        try:
            values = yaml.safe_load(RUNTIME_FILE.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DarkroomError(f"{RUNTIME_FILE}: not valid YAML: {' '.join(str(error).split())}; correct it") from None
        if not isinstance(values, dict):
            raise DarkroomError(f"{RUNTIME_FILE}: holds no keys; write lines such as `device: cpu`")
        for key, value in values.items():
            if key not in known:
                raise DarkroomError(f"{RUNTIME_FILE}: unknown key {key!r}; known keys: {', '.join(known)}")
            if type(value) is not known[key] and not (known[key] is float and type(value) is int):
                raise DarkroomError(f"{RUNTIME_FILE}: {key} = {value!r} must be of type {known[key].__name__}")
            if isinstance(value, int | float):
                _number(f"{RUNTIME_FILE}: {key}", value)
    for key, kind in known.items():
        text = os.environ.get(f"DARKROOM_{key.upper()}")
        if text is None:
            continue
        if kind is bool:
            if text.lower() not in ("0", "1", "true", "false"):
                raise DarkroomError(f"DARKROOM_{key.upper()} = {text!r}: give 1 or 0")
            values[key] = text.lower() in ("1", "true")
        elif kind is float:
            values[key] = _number(f"DARKROOM_{key.upper()}", text)
        elif kind is int:
            if not text.isdigit():
                raise DarkroomError(f"DARKROOM_{key.upper()} = {text!r}: give a whole number")
            values[key] = int(text)
        else:
            values[key] = text
    for key, choices in CHOICES.items():
        if key in values and values[key] not in choices:
            known_ones = " or ".join([", ".join(choices[:-1]), choices[-1]])
            raise DarkroomError(f"{key} = {values[key]!r} (DARKROOM_{key.upper()} or runtime.yaml): give {known_ones}")
    if values.get("processes") == 0:
        raise DarkroomError("processes = 0 (DARKROOM_PROCESSES or runtime.yaml): give 1 or more")
    ray = values.get("ray", "")
    if ray not in ("", "auto") and not RAY_ADDRESS.fullmatch(ray):
        raise DarkroomError(f"ray = {ray!r} (DARKROOM_RAY or runtime.yaml): give auto or ray://HOST:PORT")
    return Runtime(**values)


def _number(name: str, value: str | float) -> float:
    try:
        value = float(value)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise DarkroomError(f"{name} = {value!r}: give a number from 0 on")
    return value


def start(settings: Runtime | None = None, rank: int = 0, processes: int = 1) -> torch.device:
    """Apply the runtime settings to PyTorch and return the device to work on. Call once per process, before any work.

    Args:
        rank: of this process among the `processes` of a training.
    """
    settings = settings or runtime()
    torch.set_num_threads(settings.threads or max(available_cores() // processes, 1))
    device = resolve_device(settings.device)
    if settings.deterministic:
        _be_deterministic(device)
    # Kernels chosen by trying them out are not the same ones every time.
    torch.backends.cudnn.benchmark = not settings.deterministic
    _Started.device = _own_device(device, rank, processes)
    return _Started.device


class _Started:
    """The device that this process was started with."""

    device: torch.device | None = None


def current() -> torch.device:
    """The device that this process works on: the one that `start` gave, or would."""
    return _Started.device or resolve_device(runtime().device)


def _be_deterministic(device: torch.device) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # On CUDA a warning is not enough: only where others are errors does flash attention take its deterministic backward
    # pass (torch 2.13, attention_backward.cu). This way to ask for it does not import the compiler: four seconds.
    torch.set_deterministic_debug_mode("error" if device.type == "cuda" else "warn")
    # Otherwise every new tensor is filled with NaN first, which costs a quarter of the speed of training on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # Flash attention remains, and the equation itself where that is impossible: fp32, heads of more than 256.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)


def _own_device(device: torch.device, rank: int, processes: int) -> torch.device:
    """Of several processes each has a CUDA device to itself, or all share the CPU."""
    if processes == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise DarkroomError(f"processes = {processes}: device = {str(device)!r}; set DARKROOM_DEVICE=cuda or cpu")
    if processes > torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise DarkroomError(f"processes = {processes}: CUDA devices here: {found}; set DARKROOM_PROCESSES to that")
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


def available_cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(name: str) -> torch.device:
    """The torch device called `name`; "auto" takes CUDA, then MPS, then the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DarkroomError(f"device = {name!r}: give auto, cpu, cuda, cuda:N or mps") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False):
        raise DarkroomError(f"device = {name!r} is not available here; set DARKROOM_DEVICE=auto or cpu")
    return device


def channels_last(network: Network) -> Network:
    """The network with its kernels stored channels last, which convolutions on most processors prefer."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Run in `precision` ("fp32" or "bf16"): bf16 computes convolutions and products in bfloat16."""
    if precision == "fp32":
        return nullcontext()
    if precision == "bf16":
        # Each weight is cast once in a pass anyway; a cache of casts would outlive the graph that made them.
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=device.type != "cuda")
    raise DarkroomError(f"precision = {precision!r}: give fp32 or bf16")


def execution_profile(device: torch.device, processes: int = 1) -> dict[str, str]:
    """What, besides inputs and params, may change the last bits of a result: hardware, threads, library versions."""
    settings, cuda = runtime(), device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.machine()
    return {
        "device": f"{device.type} ({name})",
        "threads": str(torch.get_num_threads()),
        "processes": str(processes),
        **({"strategy": settings.strategy} if processes > 1 else {}),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "system": platform.system(),
        "deterministic": str(settings.deterministic).lower(),
        **({"compile": settings.compile, "fused_norms": str(settings.fused_norms).lower()} if cuda else {}),
        **{f"version.{package}": metadata.version(package) for package in PROFILED_PACKAGES},
    }
