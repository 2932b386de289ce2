"""How fast a training is: samples and floating-point operations a second, and their share of what the device can do.

For the tracking alone: what depends on the clock must not reach an output.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from darkroom.config.base import Precision
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.curves import Log
from darkroom.training.engine.loop import Hook

TRAINING = 3  # passes' worth of operations in a step: one forward, two for the gradients of inputs and of weights
# Dense products in bfloat16, TFLOP/s, from NVIDIA's data sheets; the first name that is part of the device's counts.
PEAKS = {
    "B200": 2250.0,
    "GH200": 989.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
SIDE_ON_CPU, SIDE, TRIALS = 1024, 4096, 4  # of the matrices by which other peaks are measured
PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm)


class _Products(TorchFunctionMode):
    """Counts floating-point operations of convolutions and products, two for each multiply-add.

    PyTorch's FlopCounterMode finds the same (a test compares them), but imports the compiler, which takes seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops: int = 0
        self.with_weights: int = 0  # of them, those of convolutions and linear layers

    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        with_weights = 0
        if func is torch.conv2d:
            with_weights = 2 * out.numel() * args[1][0].numel()
        elif func is torch.conv_transpose2d:
            with_weights = 2 * args[0].numel() * args[1][0].numel()
        elif func is F.linear:
            with_weights = 2 * out.numel() * args[1].shape[1]
        elif func in PRODUCTS:
            self.flops += 2 * out.numel() * args[0].shape[-1]
        elif func is F.scaled_dot_product_attention:
            q, k, v = args[:3]
            self.flops += 2 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        self.flops, self.with_weights = self.flops + with_weights, self.with_weights + with_weights
        return out


@torch.no_grad()
def flops(network: nn.Module, forward: Callable[[], Tensor], with_weights: bool = False) -> int:
    """Floating-point operations of `forward`, which runs `network`; nothing of the network changes by it.

    Args:
        with_weights: those of convolutions and linear layers alone, each of which takes as many again for the gradients
            of weights that are trained.
    """
    was = network.training
    network.eval()  # norms over the batch keep their statistics
    try:
        with _Products() as counted:
            forward()
    finally:
        network.train(was)
    found: int = counted.with_weights if with_weights else counted.flops
    return found


class Throughput:
    """Hooks that report the speed of a training at every `every`th step.

    Time in other hooks does not count, nor does the first step, which warms up; that in checkpoints does.

    Args:
        per_sample: floating-point operations of a step, for each sample; what is computed again to save memory does
            not count.
        log: what to tell: a tracked run's `metrics`, and nothing that writes an output.
    """

    def __init__(self, per_sample: float, every: int, context: TrainingContext, log: Log) -> None:
        self.per_sample, self.every, self.context, self.log = per_sample, every, context, log
        self._mark: float | None = None
        self._at = self._steps = 0
        self._seconds = 0.0
        self._peak: float | None = None

    def around(self, hooks: Sequence[Hook]) -> list[Hook]:
        """The hooks, with those before and behind them that look at the clock."""
        return [self._before, *hooks, self._after]

    def _before(self, step: int, values: Mapping[str, float]) -> None:
        if self._mark is not None and step > self._at:
            self._seconds += time.perf_counter() - self._mark
            self._steps += step - self._at
        self._at = step
        if self._steps and step % self.every == 0:
            self.log(step, self._speed())
            self._steps, self._seconds = 0, 0.0

    def _after(self, step: int, values: Mapping[str, float]) -> None:
        self._mark = time.perf_counter()

    def _speed(self) -> dict[str, float]:
        s = self.context
        samples = self._steps * s.batch_size / max(self._seconds, 1e-9)
        if self._peak is None:
            self._peak = s.processes.size * peak(s.device, s.precision)
        return {
            "throughput/samples_per_second": samples,
            "throughput/tflops": samples * self.per_sample / 1e12,
            "throughput/mfu": samples * self.per_sample / self._peak,
        }


def peak(device: torch.device, precision: Precision) -> float:
    """Operations a second that one device can do at most: by its data sheet (bf16), else as a product is measured."""
    if device.type == "cuda" and precision == "bf16":
        name = torch.cuda.get_device_name(device)
        for known, tera in PEAKS.items():
            if known in name:
                return tera * 1e12
    side = SIDE_ON_CPU if device.type == "cpu" else SIDE
    x = torch.ones(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    seconds = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        float((x @ x)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - began)
    return float(2 * side**3 / min(seconds))
