"""The speed that a training reports: its operations are PyTorch's count, and the clock runs in steps alone.

Would catch a product that is not counted, a network changed by being counted, time of validation counted as training,
and steps counted twice where hooks are called seldom.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from darkroom.config.base import Precision
from darkroom.nn.layers import attention
from darkroom.training.engine import throughput
from darkroom.training.engine.blank import denoised, judged, matched, reconstructed
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.throughput import TRAINING, Throughput, flops, peak
from tests.support import networks as specs

PICTURE, WORDS, CPU = (1, 28, 28), (6, 16), torch.device("cpu")
DENOISERS = {
    "unet_2d_condition": specs.unet(widths=(32, 64), heads=8, channels=1, side=28, words=16),
    "score_transformer": specs.score("transformer", classes=10),
    "score_concat": specs.score("concat"),
    "layer_norm_unet": specs.layer_norm(),
    "batch_norm_unet": specs.batch_norm((16, 32), side=28),
}


def networks() -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    made: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {}
    for name, spec in DENOISERS.items():
        unet = specs.built(spec)
        made[name] = (unet, partial(denoised, unet, 1, PICTURE, WORDS))
    vae = specs.built(specs.kl((16, 32), channels=1))
    text = specs.text(20, layers=2, length=6, act="gelu", special=specs.tokens(0, 0))
    towers, judge = specs.built(specs.towers(text, channels=1)), specs.built(specs.classifier((3, 4), channels=1))
    made["autoencoder"] = (vae, lambda: reconstructed(vae, 1, PICTURE))
    made["towers"] = (towers, lambda: matched(towers, 1, PICTURE, 6))
    made["classifier"] = (judge, lambda: judged(judge, 1, PICTURE))
    return made


@pytest.mark.parametrize("name", [*DENOISERS, "autoencoder", "towers", "classifier"])
def test_operations_are_those_that_pytorch_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, forward = networks()[name]
    monkeypatch.setattr(attention, "EXPLICIT_UP_TO", 0)
    fused = flops(network, forward)
    monkeypatch.setattr(attention, "EXPLICIT_UP_TO", 1 << 40)  # PyTorch's counter leaves out the fused kernel of CPUs
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = flops(network, forward)
    assert fused == found
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    network.eval()
    with FlopCounterMode(display=False) as pytorchs:
        out = forward()
    assert found == pytorchs.get_total_flops() > 0
    with FlopCounterMode(display=False) as backwards:
        torch.autograd.grad(out.float().sum(), [p for p in network.parameters() if p.requires_grad], allow_unused=True)
    whole = found + backwards.get_total_flops()
    assert 0.85 * TRAINING * found <= whole <= TRAINING * found  # the first layer's input needs no gradient


class Clock:
    """A clock that is turned by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("darkroom.training.engine.throughput.time.perf_counter", lambda: self.now)


@pytest.mark.parametrize("called", [1, 5])
def test_the_clock_runs_in_steps_alone(monkeypatch: pytest.MonkeyPatch, called: int) -> None:
    """Whether hooks are called at every step or at every fifth; the first call only starts the clock."""
    clock, said = Clock(monkeypatch), []
    monkeypatch.setattr(throughput, "peak", lambda device, precision: 1e12)
    speed = Throughput(5e9, 10, TrainingContext(8, 0, "bf16", CPU), lambda step, values: said.append((step, values)))

    def slow(step: int, values: object) -> None:
        clock.now += 100

    hooks = speed.around([slow])
    for step in range(1, 31):
        clock.now += 50 if step <= called else 0.5
        if step % called == 0:
            for hook in hooks:
                hook(step, {})
    assert [step for step, _ in said] == [10, 20, 30]
    for _, values in said:
        assert values["throughput/samples_per_second"] == pytest.approx(16)
        assert values["throughput/tflops"] == pytest.approx(0.08)
        assert values["throughput/mfu"] == pytest.approx(0.08)


def test_a_training_that_is_gone_on_with_or_timed_counts_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = Clock(monkeypatch), []
    monkeypatch.setattr(throughput, "peak", lambda device, precision: 1e12)
    speed = Throughput(1.0, 10, TrainingContext(1, 0, "fp32", CPU), lambda step, values: said.append(values))
    for step in (1009, 1010, 0):
        clock.now += 0.25
        for hook in speed.around([]):
            hook(step, {})
    assert [values["throughput/samples_per_second"] for values in said] == [4.0]


@pytest.mark.parametrize(
    ("name", "tera"),
    [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA L40S", 362), ("NVIDIA A100-SXM4-80GB", 312)],
)
def test_known_devices_have_their_data_sheet_s_peak(monkeypatch: pytest.MonkeyPatch, name: str, tera: float) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: name)
    assert peak(torch.device("cuda"), "bf16") == tera * 1e12


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_peaks_are_measured(monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    monkeypatch.setattr(throughput, "SIDE_ON_CPU", 256)
    assert 1e7 < peak(CPU, precision) < 1e15
