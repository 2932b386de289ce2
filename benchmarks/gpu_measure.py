"""What the rows of gpu.py measure with: laps of a training, arithmetic, memory, and what they ran on."""

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from side_by_side import peak_mib

FLOP_A_MAC = 6  # of training: a product and a sum, forward, and twice as many backward
LAPS, LAP_SECONDS, PROBE = 3, 3.0, 4
PROFILED, KERNELS = 3, 15  # steps that are profiled, and kernels that are named
PRODUCT, PRODUCTS = 8192, 20  # side of the matrices of the measured peak, and how many products are timed

Emit = Callable[[Mapping[str, Any]], None]


class EnoughError(Exception):
    """All is measured; raised out of the training."""


class Clock:
    """Times work on a device, and knows the memory that it took.

    Its start empties the account of memory, so make it before what is measured is built.
    """

    def __init__(self, device: torch.device, tiny: bool) -> None:
        self.device, self.tiny = device, tiny
        self.began = time.perf_counter()
        self.peak = product_tflops(device, 256 if tiny else PRODUCT)
        self.restart()

    def now(self) -> float:
        """Seconds, once the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def around(self, work: Callable[[], object]) -> float:
        """How long `work` takes, in seconds."""
        began = self.now()
        work()
        return self.now() - began

    def memory(self) -> dict[str, float]:
        """MiB at the most: of tensors (on a CPU: of the process), and taken from the device for them."""
        if self.device.type != "cuda":
            return {"peak_mib": round(peak_mib()), "reserved_mib": round(peak_mib())}
        of = torch.cuda.max_memory_allocated(self.device), torch.cuda.max_memory_reserved(self.device)
        return {"peak_mib": round(of[0] / 2**20), "reserved_mib": round(of[1] / 2**20)}

    def arithmetic(self, images_per_second: float, flop_an_image: float) -> dict[str, float]:
        """TFLOP/s, and of what the device reaches in a matrix product."""
        tflops = images_per_second * flop_an_image / 1e12
        return {
            "tflops": round(tflops, 5),
            "matrix_product_tflops": round(self.peak, 5),
            "share_of_peak": round(tflops / self.peak, 4),
        }

    def restart(self) -> None:
        """Empty the account of memory again, for another piece of work in the same process."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


class Laps:
    """A hook that times a training: LAPS laps of about LAP_SECONDS each, once `warm_up` steps are done.

    The device is waited for at the ends of laps alone. Any step may be the next one that the hook is called after.

    Args:
        emit: is told the figures before anything else happens to the training.
        steps: that the training has; laps are shorter where they would not fit.
        batch: samples of a step.
        flop_an_image: of a training step.
        profiled: whether the steps after that are profiled, which is emitted too.
    """

    def __init__(
        self,
        clock: Clock,
        emit: Emit,
        *,
        warm_up: int,
        steps: int,
        batch: int,
        flop_an_image: float,
        about: Mapping[str, Any],
        profiled: bool = False,
    ) -> None:
        self._clock, self._emit, self._about = clock, emit, about
        self._batch, self._flop, self._profiled = batch, flop_an_image, profiled
        self._next = 2 if clock.tiny else warm_up
        self._longest = (steps - warm_up) // (LAPS + 1)
        self._seconds = 0.05 if clock.tiny else LAP_SECONDS
        self._began = time.perf_counter()
        self._stamps: list[tuple[int, float]] = []
        self._loss: Any = math.nan
        self._profiler: Any = None

    def __call__(self, step: int, values: Mapping[str, Any]) -> None:
        """See `darkroom.training.engine.loop.Hook`.

        Raises:
            EnoughError: all is measured.
        """
        if "loss" in values:
            self._loss = values["loss"]
        if step < self._next:
            return
        now = self._clock.now()
        if self._profiler is not None:
            self._profiler.stop()
            self._emit({"kernels": kernels(self._profiler, step - self._stamps[-1][0], now - self._stamps[-1][1])})
            raise EnoughError
        self._stamps.append((step, now))
        count = len(self._stamps)
        if count == 1:  # what comes next only tells how many steps make a lap
            self._next = step + (2 if self._clock.tiny else PROBE)
        elif count < LAPS + 2:
            (before, then), (after, at) = self._stamps[-2:]
            lap = round(self._seconds * (after - before) / (at - then))
            self._next = step + min(max(lap, 2), self._longest)
        else:
            self._tell()
            if not self._profiled:
                raise EnoughError
            self._profiler = started_profiler(self._clock.device)
            self._stamps.append((step, self._clock.now()))
            self._next = step + PROFILED

    def _tell(self) -> None:
        laps = self._stamps[1:]
        rates = [(b - a) / (at - then) for (a, then), (b, at) in pairwise(laps)]
        rate = statistics.median(rates)
        images = rate * self._batch
        self._emit(
            {
                **self._about,
                "batch": self._batch,
                "steps_per_second": round(rate, 4),
                "images_per_second": round(images, 3),
                "spread": round((max(rates) - min(rates)) / rate, 4),
                **self._clock.arithmetic(images, self._flop),
                **self._clock.memory(),
                "steps_timed": laps[-1][0] - laps[0][0],
                "warm_up_seconds": round(self._stamps[0][1] - self._began, 2),
                "loss": float(self._loss),
                **compiled_graphs(),
            }
        )


def product_tflops(device: torch.device, side: int) -> float:
    """TFLOP/s of bf16 products of two square matrices of random numbers."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        torch.mm(a, b)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(PRODUCTS):
        torch.mm(a, b)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 2 * side**3 * PRODUCTS / (time.perf_counter() - began) / 1e12


@torch.no_grad()
def forward_macs(call: Callable[[], object]) -> float:
    """Multiplications with a sum of the convolutions, products and attentions in `call`."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # products, which are counted
        call()
    return counter.get_total_flops() / 2


def started_profiler(device: torch.device) -> Any:
    """A profiler of what runs on the device, which has begun."""
    which = torch.profiler.ProfilerActivity
    profiler = torch.profiler.profile(activities=[which.CUDA if device.type == "cuda" else which.CPU])
    profiler.start()
    return profiler


def kernels(profiler: Any, steps: int, seconds: float) -> dict[str, Any]:
    """The kernels that take longest: share of all kernels' time, and calls a step; what the device is busy for."""
    events = [(e.key, e.self_device_time_total or e.self_cpu_time_total, e.count) for e in profiler.key_averages()]
    whole = sum(time for _, time, _ in events) or 1
    longest = sorted(events, key=lambda event: -event[1])[:KERNELS]
    return {
        "steps": steps,
        "busy": round(whole / 1e6 / seconds, 3),
        "calls_per_step": round(sum(count for *_, count in events) / steps, 1),
        "longest": [[name[:100], round(time / whole, 4), round(count / steps, 1)] for name, time, count in longest],
    }


def compiled_graphs() -> dict[str, int]:
    """How many graphs torch.compile has made in this process; 0 where it was not used."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return {"compiled_graphs": int(dynamo.counters["stats"]["unique_graphs"]) if dynamo is not None else 0}


def surroundings(device: torch.device) -> dict[str, Any]:
    """What a figure depends on besides the code."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "device": name,
        "torch": torch.__version__,
        "tf32": {"matmul": _tf32(torch.backends.cuda.matmul), "cudnn": _tf32(torch.backends.cudnn)},
        "deterministic": torch.get_deterministic_debug_mode() != 0,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def _tf32(backend: Any) -> bool | str:
    """Where PyTorch's newer way of saying so was used, asking in the older one is an error."""
    with suppress(RuntimeError):
        return bool(backend.allow_tf32)
    return str(backend.fp32_precision)
