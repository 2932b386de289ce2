"""Where work runs: the environment over runtime.yaml, and clear words for what is wrong with either."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.core.device import (
    Runtime,
    _own_device,
    autocast,
    available_cores,
    execution_profile,
    resolve_device,
    runtime,
    start,
)
from darkroom.core.errors import DarkroomError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("darkroom.core.device._Started.device", None)
    for field in fields(Runtime):
        monkeypatch.delenv(f"DARKROOM_{field.name.upper()}", raising=False)


def test_without_settings_there_are_defaults() -> None:
    assert runtime() == Runtime("auto", 0, True, processes=1, checkpoint_minutes=2.0, checkpoint_steps=0)


def test_the_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("runtime.yaml").write_text("device: cpu\nthreads: 3\n")
    assert runtime() == Runtime("cpu", 3, True)
    monkeypatch.setenv("DARKROOM_THREADS", "1")
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    assert runtime() == Runtime("cpu", 1, False)
    monkeypatch.setenv("DARKROOM_CHECKPOINT_MINUTES", "0.5")
    monkeypatch.setenv("DARKROOM_CHECKPOINT_STEPS", "7")
    assert (runtime().checkpoint_minutes, runtime().checkpoint_steps) == (0.5, 7)
    assert not runtime().checkpoint_activations
    monkeypatch.setenv("DARKROOM_CHECKPOINT_ACTIVATIONS", "1")
    assert runtime().checkpoint_activations


def test_an_empty_file_sets_nothing() -> None:
    Path("runtime.yaml").write_text("# nothing yet\n")
    assert runtime() == Runtime()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("devise: cpu", "unknown key 'devise'; known keys: device, threads, deterministic"),
        ("threads: two", "threads = 'two' must be of type int"),
        ("threads: true", "threads = True must be of type int"),
        ("deterministic: 1", "deterministic = 1 must be of type bool"),
        ("- cpu", "holds no keys; write lines such as `device: cpu`"),
        ("cpu", "holds no keys; write lines such as `device: cpu`"),
        ("device: [cpu", "not valid YAML"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_in_a_line(text: str, said: str) -> None:
    Path("runtime.yaml").write_text(text)
    with pytest.raises(DarkroomError) as error:
        runtime()
    assert str(error.value).startswith("runtime.yaml: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("THREADS", "many", "DARKROOM_THREADS = 'many': give a whole number"),
        ("THREADS", "-1", "DARKROOM_THREADS = '-1': give a whole number"),
        ("DETERMINISTIC", "yes", "DARKROOM_DETERMINISTIC = 'yes': give 1 or 0"),
        ("PROCESSES", "two", "DARKROOM_PROCESSES = 'two': give a whole number"),
        ("STRATEGY", "zero", r"strategy = 'zero' \(DARKROOM_STRATEGY or runtime.yaml\): give none, ddp or fsdp2"),
        ("COMPILE", "yes", r"compile = 'yes' \(DARKROOM_COMPILE or runtime.yaml\): give auto, always or never"),
        ("PROCESSES", "0", r"processes = 0 \(DARKROOM_PROCESSES or runtime.yaml\): give 1 or more"),
    ],
)
def test_what_is_wrong_with_the_environment_is_said_too(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DARKROOM_{name}", value)
    with pytest.raises(DarkroomError, match=said):
        runtime()


def test_devices_are_found_by_name_or_refused() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(DarkroomError, match=r"device = 'gpu': give auto, cpu, cuda, cuda:N or mps"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(DarkroomError, match="device = 'cuda' is not available here; set DARKROOM_DEVICE=auto"):
            resolve_device("cuda")


def test_bf16_computes_in_bfloat16_and_leaves_weights_alone() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with autocast(CPU, "bf16"):
        assert layer(x).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert layer(x).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(DarkroomError, match="precision = 'fp16': give fp32 or bf16"):
        autocast(CPU, "fp16")


def test_starting_applies_threads_and_determinism() -> None:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        assert start(Runtime("cpu", 1, True)) == CPU
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        memory: Any = torch.utils.deterministic
        assert not memory.fill_uninitialized_memory
        start(Runtime("cpu", 0, True))
        assert torch.get_num_threads() == available_cores()
        assert start(Runtime("cpu", 0, True), rank=1, processes=available_cores()) == CPU
        assert torch.get_num_threads() == 1
        start(Runtime("cpu", 3, True), processes=2)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


@pytest.mark.parametrize(("device", "mode"), [("cpu", 1), ("cuda", 2)])
def test_deterministic_attention_takes_flash_or_the_equation(
    device: str, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch cuDNN's or the memory-efficient kernel, and a flash backward pass that only warns that it is not
    deterministic, as it does unless what is not deterministic is an error (mode 2) on CUDA."""
    cuda = torch.backends.cuda
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    before = torch.get_deterministic_debug_mode(), cuda.cudnn_sdp_enabled(), cuda.mem_efficient_sdp_enabled()
    threads = torch.get_num_threads()
    try:
        start(Runtime(device, 1, True))
        assert torch.get_deterministic_debug_mode() == mode
        assert (cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()) == (True, True)
        assert (cuda.cudnn_sdp_enabled(), cuda.mem_efficient_sdp_enabled()) == (False, False)
        cuda.enable_cudnn_sdp(True)
        start(Runtime(device, 1, False))
        assert cuda.cudnn_sdp_enabled(), "all kernels serve where nothing is promised"
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(before[0])
        cuda.enable_cudnn_sdp(before[1])
        cuda.enable_mem_efficient_sdp(before[2])


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("mps", "processes = 3: device = 'mps'; set DARKROOM_DEVICE=cuda or cpu"),
        ("cuda:1", "processes = 3: device = 'cuda:1'; set DARKROOM_DEVICE=cuda or cpu"),
        ("cuda", "processes = 3: CUDA devices here: 2; set DARKROOM_PROCESSES to that"),
    ],
)
def test_each_process_has_a_device_of_its_own(device: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    assert [_own_device(torch.device("cuda"), rank, 2).index for rank in range(2)] == taken == [0, 1]
    assert _own_device(torch.device(device), 0, 1) == torch.device(device)
    with pytest.raises(DarkroomError) as error:
        _own_device(torch.device(device), 0, 3)
    assert str(error.value) == said


def test_the_profile_names_what_may_change_the_last_bits() -> None:
    profile = execution_profile(CPU)
    assert profile["device"].startswith("cpu (")
    assert profile["threads"] == str(torch.get_num_threads())
    assert profile["version.torch"] == torch.__version__
    assert {"instruction_set", "python", "system", "deterministic", "processes"} <= profile.keys()
    assert profile == execution_profile(CPU)
    assert execution_profile(CPU, 2) == {**profile, "processes": "2", "strategy": "ddp"}
