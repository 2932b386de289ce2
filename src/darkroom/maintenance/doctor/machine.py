"""What computes, and the room there is. PyTorch is imported by a process of its own, which may fail as it likes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from darkroom.config.lock_file import read_lock
from darkroom.config.stage_spec import LOCK
from darkroom.core.dvc_settings import DVC, cache_root
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import readable_size
from darkroom.maintenance.doctor.result import Result, ok, problem, warning

LOOKS_WITHIN = 60.0  # seconds that PyTorch may take to be imported and to look for devices
CHECKPOINT = 4  # times the weights: these, their average and AdamW's two moments
CHECKPOINTS = 3  # that lie there at once
LITTLE = 2**30  # bytes of free disk below which a warning is due, whatever is to be run
NOTHING = 64 * 2**20
CUDA_FILE = Path("/dev/nvidiactl")
# In it, so that neither its seconds nor its crash are the doctor's.
LOOK = """
import json, sys
import torch
from darkroom.core import device
from darkroom.core.errors import DarkroomError
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "cores": device.available_cores()}
found["instructions"] = torch.backends.cpu.get_cpu_capability()
try:
    settings = device.runtime()
    found["threads"] = settings.threads or max(device.available_cores() // settings.processes, 1)
    chosen = device.resolve_device(settings.device)
    found["device"] = chosen.type
    if chosen.type == "cuda":
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found["free"], found["total"] = torch.cuda.mem_get_info()
except DarkroomError as error:
    found["error"] = str(error)
print(json.dumps(found))
"""


def check_devices() -> Iterator[Result]:
    """Cores, threads, and the GPUs that PyTorch sees."""
    looking = [sys.executable, "-W", "ignore", "-P", "-c", LOOK]
    try:
        done = subprocess.run(looking, capture_output=True, text=True, timeout=LOOKS_WITHIN, check=False)
        found = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        yield problem("devices", f"PyTorch was not imported within {LOOKS_WITHIN:.0f} s: no stage would start")
        return
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        install = "install it anew (make setup, or pip install --force-reinstall torch)"
        yield problem("devices", f"PyTorch cannot be imported ({last}): no stage would start", install)
        return
    if "error" in found:
        what, _, remedy = found["error"].rpartition("; ")
        from_variable = "DARKROOM_DEVICE" in os.environ and what.startswith("device = ")
        yield problem(
            "devices", f"{what}: no stage would start", remedy, "unset DARKROOM_DEVICE" if from_variable else ""
        )
        return
    cpu = f"{found['cores']} cores ({found['instructions']}), {found['threads']} threads"
    if found["device"] == "cuda":
        room = f"{readable_size(found['free'])} of {readable_size(found['total'])} free"
        yield ok("devices", f"{', '.join(found['gpus'])} ({room}); {cpu}")
    elif CUDA_FILE.exists() and found["device"] == "cpu" and os.environ.get("DARKROOM_DEVICE", "auto") == "auto":
        built = f"for CUDA {found['cuda']}, and the driver does not go with it" if found["cuda"] else "without CUDA"
        yield warning(
            "devices",
            f"{cpu}; an NVIDIA GPU is here, but PyTorch {found['torch']} was built {built}: all runs on the CPU",
            "install the build that goes with the driver (nvidia-smi): https://pytorch.org/get-started/locally",
        )
    else:
        yield ok("devices", f"{found['device']}: {cpu}" if found["device"] != "cpu" else cpu)


def check_memory() -> Iterator[Result]:
    """How much there is; what each stage needs is a computation of its own."""
    memory = psutil.virtual_memory()
    about = f"{readable_size(memory.available)} of {readable_size(memory.total)} free"
    yield ok("memory", f"{about} (what each stage needs: darkroom params check --memory)")


def check_disk() -> Iterator[Result]:
    """Whether there is room for another run of the pipeline as dvc.lock has it, on each file system that it uses."""
    needs = {Path(): 0.0, _existing(cache_root() if DVC.is_dir() else Path()): 0.0}
    outputs = _output_sizes()
    weights = [size for path, size in outputs.items() if path.startswith("artifacts/")]
    needs[Path()] += sum(outputs.values()) + CHECKPOINTS * CHECKPOINT * max(weights, default=0)
    needs[list(needs)[-1]] += sum(outputs.values())
    systems: dict[int, tuple[Path, float]] = {}
    for folder, size in needs.items():
        device = folder.stat().st_dev
        first, before = systems.get(device, (folder, 0.0))
        systems[device] = (first, before + size)
    for folder, wanted in systems.values():
        usage = shutil.disk_usage(folder)
        if not usage.total:  # a file system of the kernel's, which keeps nothing
            continue
        where = "" if folder == Path() else f" for {folder}"
        room = f"{readable_size(usage.free)} of {readable_size(usage.total)} free{where}"
        asks = f"a run like that in {LOCK} takes {readable_size(wanted)} (outputs, DVC's copies, checkpoints)"
        remedy = "make room, or move the project or DVC's cache (docs/scaling-out.md)"
        if usage.free < max(wanted, NOTHING):
            why = asks if wanted else "a stage could not write its outputs"
            yield problem("disk", f"{room}: {why}", remedy, "darkroom gc")
        elif usage.free < LITTLE:
            yield warning("disk", room, remedy, "darkroom gc")
        else:
            yield ok("disk", f"{room}; {asks}" if wanted else room)


def _output_sizes() -> dict[str, float]:
    """{output: bytes} of the pipeline as it was last run; nothing where it was not."""
    try:
        return {path: float(size) for stage in read_lock().values() for path, size in stage.sizes.items()}
    except DarkroomError:
        return {}


def _existing(path: Path) -> Path:
    """The nearest folder above that is there."""
    path = path.absolute()
    found = next(folder for folder in (path, *path.parents) if folder.exists())
    return Path() if found.stat().st_dev == Path().stat().st_dev else found
